//! How a caller wants its inference kept: each control as a header, and in the body, because
//! gateways drop headers.

use axum::http::HeaderMap;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::config::{DisconnectPolicy, ServeConfig};
use crate::error::ApiError;
use crate::stream::{IdempotencyKey, OnDisconnect};
use crate::wire::fields::Fields;

const MAX_KEY_BYTES: usize = 255;

/// What a request says about its stream.
#[derive(Debug)]
pub(super) struct Controls {
    /// What becomes of it when its readers leave.
    pub(super) on_disconnect: OnDisconnect,
    /// The caller's name for it.
    pub(super) idempotency_key: Option<IdempotencyKey>,
}

impl Controls {
    /// Reads headers first, then `pinion` and `metadata` of the body.
    pub(super) fn read(
        headers: &HeaderMap,
        body: &Map<String, Value>,
        config: &ServeConfig,
    ) -> Result<Self, ApiError> {
        let policy = carried(headers, body, &["x-pinion-on-disconnect"], "on_disconnect")?;
        let policy = match policy {
            None => config.on_disconnect,
            Some((name, text)) => text.parse().map_err(|()| {
                let message =
                    format!("`{name}` must be one of linger, cancel and complete: {text}");
                ApiError::invalid("invalid_value", message).at(name)
            })?,
        };
        let key =
            carried(headers, body, &["idempotency-key", "x-idempotency-key"], "idempotency_key")?;
        let idempotency_key = key.map(|(name, key)| {
            if !(1..=MAX_KEY_BYTES).contains(&key.len()) {
                let message =
                    format!("`{name}` must have 1 to {MAX_KEY_BYTES} bytes: {}", key.len());
                return Err(ApiError::invalid("invalid_value", message).at(name));
            }
            Ok(IdempotencyKey { key, fingerprint: fingerprint(body) })
        });
        let on_disconnect = match policy {
            DisconnectPolicy::Linger => OnDisconnect::Linger(config.linger),
            DisconnectPolicy::Cancel => OnDisconnect::Cancel,
            DisconnectPolicy::Complete => OnDisconnect::Complete,
        };
        Ok(Self { on_disconnect, idempotency_key: idempotency_key.transpose()? })
    }
}

/// The value of a control and where it was found.
fn carried(
    headers: &HeaderMap,
    body: &Map<String, Value>,
    names: &[&'static str],
    field: &str,
) -> Result<Option<(String, String)>, ApiError> {
    for name in names {
        if let Some(value) = headers.get(*name) {
            let text = value.to_str().map_err(|_opaque| {
                ApiError::invalid("invalid_value", format!("`{name}` is not text")).at(*name)
            })?;
            return Ok(Some(((*name).to_owned(), text.trim().to_owned())));
        }
    }
    for object in ["pinion", "metadata"] {
        // What other fields of a gateway's own objects hold is its business.
        let Some(value @ Value::Object(_)) = body.get(object) else { continue };
        let fields = Fields::of(value, object)?;
        if let Some(text) = fields.string(field)? {
            return Ok(Some((fields.path(field), text.to_owned())));
        }
    }
    Ok(None)
}

/// SHA-256 of the body with its keys in order.
fn fingerprint(body: &Map<String, Value>) -> [u8; 32] {
    let mut digest = Sha256::new();
    hash_object(&mut digest, body);
    digest.finalize().into()
}

fn hash_object(digest: &mut Sha256, object: &Map<String, Value>) {
    let mut fields: Vec<(&String, &Value)> = object.iter().collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    digest.update(b"{");
    for (name, value) in fields {
        digest.update(Value::from(name.as_str()).to_string());
        digest.update(b":");
        hash_value(digest, value);
        digest.update(b",");
    }
    digest.update(b"}");
}

fn hash_value(digest: &mut Sha256, value: &Value) {
    match value {
        Value::Object(object) => hash_object(digest, object),
        Value::Array(values) => {
            digest.update(b"[");
            for value in values {
                hash_value(digest, value);
                digest.update(b",");
            }
            digest.update(b"]");
        }
        other => digest.update(other.to_string()),
    }
}
