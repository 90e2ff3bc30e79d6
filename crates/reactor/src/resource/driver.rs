//! Drivers: the runtime's side of a kind of resource, chosen by its type.
//!
//! Users see these traits only as bounds. Nobody else can name them, so nobody else can implement them.

use std::any::Any;

use super::{Flow, Output, Pollable, Resource, Vtable, Writable, polled};
use crate::{
    error::Error,
    id::Key,
    runtime::{Handle, LoopState},
};

/// Drives resources of type `R`.
pub trait Driver<R: Resource> {
    /// Returns the vtable for the resources of a service.
    fn table<S: Handle<R>>() -> &'static Vtable;

    /// Returns the resource in a slot's value.
    fn view(slot: &dyn Any) -> Option<&R>;

    /// Returns the resource in a slot's value, for changes.
    fn view_mut(slot: &mut dyn Any) -> Option<&mut R>;

    /// Registers the resource.
    ///
    /// # Errors
    /// The resource comes back with the cause.
    fn enroll(
        resource: R,
        core: &mut LoopState,
        service: u16,
        table: &'static Vtable,
    ) -> Result<Key, (R, Error)>;
}

/// Drives the output of resources of type `R`.
pub trait OutputDriver<R: Output>: Driver<R> {
    /// Queues an item.
    fn post(core: &mut LoopState, service: u16, key: Key, item: R::Item<'_>) -> Flow;
}

/// The driver of resources that the runtime watches and steps: see [`Pollable`].
#[derive(Debug)]
pub enum Polled {}

/// The driver of resources that an engine or the threads for files serve.
#[derive(Debug)]
pub enum Served {}

impl<R: Pollable> Driver<R> for Polled {
    fn table<S: Handle<R>>() -> &'static Vtable {
        polled::table::<S, R>()
    }

    fn view(slot: &dyn Any) -> Option<&R> {
        polled::view(slot)
    }

    fn view_mut(slot: &mut dyn Any) -> Option<&mut R> {
        polled::view_mut(slot)
    }

    fn enroll(
        resource: R,
        core: &mut LoopState,
        service: u16,
        table: &'static Vtable,
    ) -> Result<Key, (R, Error)> {
        polled::enroll(resource, core, service, table)
    }
}

impl<R: Writable> OutputDriver<R> for Polled {
    fn post(core: &mut LoopState, service: u16, key: Key, item: <R as Output>::Item<'_>) -> Flow {
        polled::post::<R>(core, service, key, item)
    }
}
