//! The kinds of engines.

/// The kind of an engine. Their code differs, so that each kind has artefacts of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineKind {
    /// The engine of most agents.
    Plain,
    /// The engine that counts fuel.
    Fuel,
    /// The engine with concurrency, for components of WASI 0.3.
    Async,
    /// The engine that has both.
    AsyncFuel,
}

impl EngineKind {
    /// All kinds, in the order of their declaration.
    pub(crate) const ALL: [Self; 4] = [Self::Plain, Self::Fuel, Self::Async, Self::AsyncFuel];

    /// Returns the kind with these properties.
    pub(in crate::wasm) fn of(fuel: bool, asynchronous: bool) -> Self {
        match (fuel, asynchronous) {
            (false, false) => Self::Plain,
            (true, false) => Self::Fuel,
            (false, true) => Self::Async,
            (true, true) => Self::AsyncFuel,
        }
    }

    /// Returns the name, as in the command line of the compiler and in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Fuel => "fuel",
            Self::Async => "async",
            Self::AsyncFuel => "async-fuel",
        }
    }

    /// Returns the kind of this name.
    pub(in crate::wasm) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns `true` if its code counts fuel.
    pub(in crate::wasm) fn counts_fuel(self) -> bool {
        matches!(self, Self::Fuel | Self::AsyncFuel)
    }

    /// Returns `true` if several tasks of a guest may run in a store.
    pub(in crate::wasm) fn is_asynchronous(self) -> bool {
        matches!(self, Self::Async | Self::AsyncFuel)
    }
}
