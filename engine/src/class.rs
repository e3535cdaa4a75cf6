//! Route classes: what callers say about urgency.

use std::ops::{Index, IndexMut};

/// What a caller said about urgency. The variants are in that order, the most urgent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteClass {
    /// Somebody waits for the first token.
    Latency,
    /// Checks on the path of other requests.
    Compliance,
    /// Nothing was said.
    #[default]
    Default,
    /// Long thinking; throughput counts.
    Reasoning,
}

impl RouteClass {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Latency, Self::Compliance, Self::Default, Self::Reasoning];

    /// Its name in settings, headers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Compliance => "compliance",
            Self::Default => "default",
            Self::Reasoning => "reasoning",
        }
    }
}

/// One value for each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerClass<T>([T; RouteClass::ALL.len()]);

impl<T> PerClass<T> {
    /// Makes the value of each class.
    pub fn from_fn(make: impl FnMut(RouteClass) -> T) -> Self {
        Self(RouteClass::ALL.map(make))
    }

    /// The values, those of the most urgent class first.
    pub fn iter(&self) -> impl Iterator<Item = (RouteClass, &T)> {
        RouteClass::ALL.into_iter().zip(&self.0)
    }
}

impl<T> Index<RouteClass> for PerClass<T> {
    type Output = T;

    fn index(&self, class: RouteClass) -> &T {
        &self.0[class as usize]
    }
}

impl<T> IndexMut<RouteClass> for PerClass<T> {
    fn index_mut(&mut self, class: RouteClass) -> &mut T {
        &mut self.0[class as usize]
    }
}
