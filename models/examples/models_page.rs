//! Prints `docs/models.md`.
#![forbid(unsafe_code)]

#[expect(clippy::print_stdout, reason = "this is what it is for")]
fn main() {
    print!("{}", pinion_models::models_page());
}
