//! What becomes of the sums of a product.

/// What a product does to its result.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    /// It is overwritten.
    Write,
    /// It is added to.
    Add,
}

/// What happens to sums before they are a result.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    /// A number a lane.
    pub(crate) bias: Option<&'a [f32]>,
    /// What is there before.
    pub(crate) mode: Mode,
}

impl Finish<'_> {
    /// Writes or adds the sums of the lanes from `first` on to `out`, with their bias.
    pub(crate) fn write(&self, first: usize, sums: &[f32], out: &mut [f32]) {
        let bias = self.bias.map(|bias| &bias[first..first + out.len()]);
        let sums = &sums[..out.len()];
        match (self.mode, bias) {
            (Mode::Write, None) => out.copy_from_slice(sums),
            (Mode::Write, Some(bias)) => {
                out.iter_mut().zip(sums).zip(bias).for_each(|((out, sum), bias)| *out = sum + bias);
            }
            (Mode::Add, None) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
            (Mode::Add, Some(bias)) => {
                out.iter_mut()
                    .zip(sums)
                    .zip(bias)
                    .for_each(|((out, sum), bias)| *out += sum + bias);
            }
        }
    }
}
