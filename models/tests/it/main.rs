//! Models against other implementations, and their loading against bad files.

#[cfg(test)]
mod candle_oracle;
#[cfg(test)]
mod config;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod gpu;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod invariance;
#[cfg(test)]
mod page;
#[cfg(test)]
mod weights;
