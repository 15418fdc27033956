//! Typed constants: a name and its type, written once.

use std::marker::PhantomData;

/// A named value that others send to a run: `const APPROVAL: Signal<Approval> = Signal::new("approval");`
#[derive(Debug)]
pub struct Signal<T> {
    name: &'static str,
    of: PhantomData<fn() -> T>,
}

impl<T> Signal<T> {
    /// A signal under its written name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, of: PhantomData }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

/// Says whether an input is fit for an update; if not, why.
pub type Validator<I> = fn(&I) -> Result<(), String>;

/// A signal with an answer: the sender waits for what the workflow replies.
#[derive(Debug)]
pub struct Update<I, O> {
    name: &'static str,
    validator: Option<Validator<I>>,
    of: PhantomData<fn(I) -> O>,
}

impl<I, O> Update<I, O> {
    /// An update under its written name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, validator: None, of: PhantomData }
    }

    /// Refuses what does not pass, before anything is recorded. The text tells the sender why.
    #[must_use]
    pub const fn validated_by(mut self, validator: Validator<I>) -> Self {
        self.validator = Some(validator);
        self
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its validator.
    #[must_use]
    pub const fn validator(&self) -> Option<Validator<I>> {
        self.validator
    }
}

/// A named value that a run publishes for queries: the latest is kept.
#[derive(Debug)]
pub struct Published<T> {
    name: &'static str,
    of: PhantomData<fn() -> T>,
}

impl<T> Published<T> {
    /// A published value under its written name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, of: PhantomData }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

/// A named output of a run that only grows; readers resume after an offset.
#[derive(Debug)]
pub struct Stream<T> {
    name: &'static str,
    of: PhantomData<fn() -> T>,
}

impl<T> Stream<T> {
    /// A stream under its written name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, of: PhantomData }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}
