//! What a snapshot was made for: its target key names everything that decides the packed bytes and their results.

use pinion_kernels::{Device, LAYOUT_VERSION, cpu};
use serde::{Deserialize, Serialize};

use super::SnapshotError;
use super::format::FORMAT;

/// A device, a type and a build. Two that differ in any field never share a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Version of the snapshot format.
    pub format: u32,
    /// Version of pinion.
    pub engine: String,
    /// Version of the packed layouts.
    pub layout: u32,
    /// Kind of device, with the processor family.
    pub device: String,
    /// The kernels that compute on it: results differ in the last bits between them.
    pub kernels: String,
    /// Weight type that was asked for; `auto` is the package's own.
    pub dtype: String,
}

impl Target {
    /// This build on a device of this machine.
    pub fn of(device: &Device, dtype: Option<&str>) -> Self {
        let cpu = Self::cpu(dtype);
        match device {
            Device::Cpu => cpu,
            Device::Gpu(_) => Self { device: "cuda".to_owned(), kernels: device.describe(), ..cpu },
        }
    }

    /// This build on this processor.
    pub fn cpu(dtype: Option<&str>) -> Self {
        Self {
            format: FORMAT,
            engine: env!("CARGO_PKG_VERSION").to_owned(),
            layout: LAYOUT_VERSION,
            device: format!("cpu-{}", std::env::consts::ARCH),
            kernels: cpu::kernel_set().to_owned(),
            dtype: dtype.unwrap_or("auto").to_owned(),
        }
    }

    /// The name of the folder of its snapshots.
    pub fn key(&self) -> String {
        let Self { format, engine, layout, device, kernels, dtype } = self;
        // Lines, because no value has a line break.
        let text = format!("{format}\n{engine}\n{layout}\n{device}\n{kernels}\n{dtype}\n");
        blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
    }

    /// Refuses a snapshot that was made for another target, by the first field that differs.
    pub(super) fn expect(&self, found: &Self) -> Result<(), SnapshotError> {
        let fields = |of: &Self| {
            [
                ("format", of.format.to_string()),
                ("engine", of.engine.clone()),
                ("layout", of.layout.to_string()),
                ("device", of.device.clone()),
                ("kernels", of.kernels.clone()),
                ("dtype", of.dtype.clone()),
            ]
        };
        let mut pairs = fields(self).into_iter().zip(fields(found));
        match pairs.find(|(expected, found)| expected != found) {
            Some(((field, expected), (_, found))) => {
                Err(SnapshotError::Foreign { field, found, expected })
            }
            None => Ok(()),
        }
    }
}
