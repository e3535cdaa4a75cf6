//! Length-prefixed frames: four bytes of length (big endian), then a postcard message.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest message; a longer one means that the peer is broken.
pub const MAX_FRAME_BYTES: usize = 128 * 1024 * 1024;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer is gone.
    #[error("the connection is closed")]
    Closed,
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer does not speak this protocol.
    #[error("a frame of {0} bytes is longer than the limit of {MAX_FRAME_BYTES}")]
    TooLong(usize),
    /// The peer does not speak this protocol.
    #[error("a frame does not decode: {0}")]
    Decode(#[from] postcard::Error),
}

/// Bytes of a frame, prefix included.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let mut frame = postcard::to_extend(message, vec![0; 4])?;
    let length = frame.len() - 4;
    if MAX_FRAME_BYTES < length {
        return Err(FrameError::TooLong(length));
    }
    frame[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(frame)
}

/// The message in a frame's payload.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    Ok(postcard::from_bytes(payload)?)
}

/// Reads one message; `Closed` when the peer ended between frames.
pub fn read_frame<T: DeserializeOwned>(mut from: impl Read) -> Result<T, FrameError> {
    let mut prefix = [0; 4];
    match from.read_exact(&mut prefix) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(FrameError::Closed),
        other => other?,
    }
    let length = u32::from_be_bytes(prefix) as usize;
    if MAX_FRAME_BYTES < length {
        return Err(FrameError::TooLong(length));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    decode(&payload)
}

/// Writes one message.
pub fn write_frame(mut to: impl Write, message: &impl Serialize) -> Result<(), FrameError> {
    Ok(to.write_all(&encode(message)?)?)
}
