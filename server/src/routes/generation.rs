//! Generations behind one request, and their events in the order in which they come.

use std::pin::Pin;

use futures_core::Stream;
use futures_util::future::select_all;
use futures_util::stream::{SelectAll, unfold};
use futures_util::{FutureExt, StreamExt};

use crate::error::ApiError;
use crate::ipc::Event;
use crate::supervisor::{Events, Generation, Package};
use crate::wire::openai::Submission;

/// Running generations. Dropping it cancels those that are not finished.
pub(crate) struct Running {
    _generations: Vec<Generation>,
    events: SelectAll<IndexedEvents>,
}

type IndexedEvents = Pin<Box<dyn Stream<Item = (usize, Event)> + Send>>;

impl Running {
    /// Submits at least one generation, and waits until the first token of any of them, so that
    /// whatever is refused is refused before an answer has begun.
    pub(crate) async fn start(
        package: &Package,
        submissions: Vec<Submission>,
    ) -> Result<Self, ApiError> {
        let submitted = submissions
            .into_iter()
            .map(|one| package.generate_choices(one.prompt, one.params, &one.further_seeds))
            .collect::<Result<Vec<_>, _>>()?;
        let generations: Vec<Generation> = submitted.into_iter().flatten().collect();
        let admitted = |generation: &Generation| {
            let mut events = generation.events();
            async move { events.admitted().await }.boxed()
        };
        select_all(generations.iter().map(admitted)).await.0?;
        for generation in &generations {
            admitted(generation).now_or_never().transpose()?;
        }
        let events = generations.iter().enumerate().map(|(index, generation)| {
            Box::pin(unfold(generation.events(), move |events| next_of(index, events)))
                as IndexedEvents
        });
        Ok(Self { events: events.collect(), _generations: generations })
    }

    /// The next event, and the index of its generation; none when all are finished.
    pub(crate) async fn next(&mut self) -> Option<(usize, Event)> {
        self.events.next().await
    }

    /// The next event, if it is there already.
    pub(crate) fn next_ready(&mut self) -> Option<(usize, Event)> {
        self.events.next().now_or_never().flatten()
    }

    /// Whether `next` is known to have no more.
    pub(crate) fn is_finished(&self) -> bool {
        self.events.is_empty()
    }
}

async fn next_of(index: usize, mut events: Events) -> Option<((usize, Event), Events)> {
    let event = events.next().await?;
    Some(((index, event), events))
}
