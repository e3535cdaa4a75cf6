//! What Cog promises to its users: cog.yaml, schemas, the prediction envelope.
