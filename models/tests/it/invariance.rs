//! A sequence's logits depend on nothing but the sequence.

use pinion_kernels::WeightType;
use pinion_models::testing::{logits, random_model, tiny_llama, tiny_others};

use crate::harness::{Runner, Sequence, backends, relative_error};

#[test]
fn logits_are_the_same_bits_alone_chunked_and_in_a_batch() {
    let texts: Vec<Vec<u32>> =
        (0..3).map(|i| (0..20 + 9 * i).map(|t| (t * 13 + i * 29) % 97).collect()).collect();
    for kind in [WeightType::F32, WeightType::Bf16] {
        let model = random_model(&tiny_llama(), 0, Some(kind)).unwrap();
        for attention in backends() {
            let mut runner = Runner::new(&*model, &*attention);
            let whole: Vec<_> = texts.iter().map(|text| runner.generate(text, 64, 0).0).collect();
            // The reference multiplies whole chunks at once and may round by their size.
            let chunks: &[usize] = if attention.name() == "reference" { &[] } else { &[1, 7] };
            for (text, whole) in texts.iter().zip(&whole) {
                for &chunk in chunks {
                    let chunked = runner.generate(text, chunk, 0).0;
                    assert_eq!(bits(&chunked), bits(whole), "{kind} {}", attention.name());
                }
            }
            let mut sequences: Vec<_> = texts.iter().map(|_| Sequence::default()).collect();
            let mut work: Vec<_> = sequences
                .iter_mut()
                .zip(&texts)
                .map(|(sequence, text)| (sequence, text.as_slice()))
                .collect();
            let batched = runner.step(&mut work);
            assert_eq!(bits(&batched), bits(&whole.concat()), "{kind} {}", attention.name());
        }
    }
}

#[test]
fn other_architectures_run_with_every_weight_type() {
    let text: Vec<u32> = (0..20).map(|t| (t * 13 + 5) % 97).collect();
    for config in tiny_others() {
        let run = |kind| {
            let model = random_model(&config, 0, Some(kind)).unwrap();
            (logits(&*model, &text).unwrap(), model.spec().weight_bytes)
        };
        let (exact, bytes) = run(WeightType::F32);
        for &kind in &WeightType::ALL[1..] {
            let (found, fewer) = run(kind);
            let name = config.architecture();
            assert!(fewer < bytes, "{name} {kind}");
            assert!(found.iter().flatten().all(|logit| logit.is_finite()), "{name} {kind}");
            assert_ne!(found, exact, "{name} {kind}");
            // Rounding may choose another expert, so only the kinds that hardly round are close.
            if matches!(kind, WeightType::Bf16) {
                let error = relative_error(&found[0], &exact[0]);
                assert!(error < 0.05, "{name} {kind}: {error}");
            }
        }
    }
}

fn bits(logits: &[Vec<f32>]) -> Vec<Vec<u32>> {
    logits.iter().map(|row| row.iter().map(|value| value.to_bits()).collect()).collect()
}
