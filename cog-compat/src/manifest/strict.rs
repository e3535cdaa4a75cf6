//! Whether `cog build` would accept the file.
