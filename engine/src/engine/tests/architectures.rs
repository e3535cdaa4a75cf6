//! Models unlike Llama: what else happens must not change what a request gets either.

use pinion_models::testing::{random_model, tiny_others};

use super::metamorphic::{Texts, drain, limits, requests};
use super::submit;
use crate::SchedulerConfig;
use crate::testing::engine;

#[test]
fn other_architectures_give_the_same_text_however_they_are_run() {
    let (mut num_preemptions, mut num_hits) = (0, 0);
    for config in tiny_others() {
        let name = config.architecture().to_owned();
        let mut run = |limits: SchedulerConfig, num_blocks, rounds| -> Vec<Texts> {
            let model = random_model(&config, 42, None).unwrap();
            let (mut engine, _handle) = engine(model, limits, num_blocks);
            let mut round = || {
                engine.handle(requests().into_iter().map(submit).collect());
                drain(&mut engine)
            };
            let texts = (0..rounds).map(|_| round()).collect();
            num_preemptions += engine.scheduler().stats().num_preemptions;
            num_hits += engine.scheduler().stats().prefix_hits;
            texts
        };
        let alone = SchedulerConfig { max_num_seqs: 1, prefix_cache: false, ..limits() };
        let alone = run(alone, 200, 1).remove(0);
        let texts = alone.values().map(|text| text.iter().map(|token| token.id));
        assert!(
            texts.into_iter().all(|ids| 4 <= ids.collect::<std::collections::BTreeSet<_>>().len())
        );
        for (max_chunk, num_blocks, prefix_cache) in
            [(512, 200, false), (1, 200, false), (7, 200, true), (5, 15, true), (512, 20, false)]
        {
            let limits = SchedulerConfig { max_chunk, prefix_cache, ..limits() };
            for texts in run(limits.clone(), num_blocks, 2) {
                assert_eq!(texts, alone, "{name} {num_blocks} {limits:?}");
            }
        }
    }
    assert!(5 < num_preemptions && 100 < num_hits, "{num_preemptions} {num_hits}");
}
