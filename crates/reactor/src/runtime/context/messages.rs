//! Messages between services, handles for other threads, and blocking jobs.

use super::Context;
use crate::{
    error::Fault,
    guard::Kept,
    message::{Finished, Offloaded, Refused},
    runtime::{Controller, Received, Service, ServiceId},
};

/// # Talk to services and threads, run blocking work
///
/// Every answer is a message, which arrives after the present call.
impl<S> Context<'_, S> {
    /// Returns the id of this service, with which others can send it messages.
    pub fn me(&self) -> ServiceId<S> {
        ServiceId::new(self.core.registry.runtime(), self.index)
    }

    /// Sends a message to a service of this runtime, perhaps to this one. It arrives after this call, in the
    /// order sent.
    ///
    /// # Errors
    /// [`Refused`] gives the message back if too many wait, or the service is gone.
    pub fn tell<T, M: Received<T>>(&mut self, to: ServiceId<T>, message: M) -> Result<(), Refused<M>> {
        let known = to.runtime == self.core.registry.runtime();
        if !known || !self.core.is_reachable(to.index) {
            return Err(Refused::Gone(message));
        }
        self.core.typed_queues.post(self.index, to.index, message, M::deliver_local())
    }

    /// Returns a handle by which other threads reach this service. While one lives, `run` does not end by
    /// itself.
    pub fn controller(&self) -> Controller<S>
    where
        S: Service,
    {
        Controller::new(self.index, &self.core.mailbox)
    }

    /// Runs blocking work on a thread of the runtime's small pool. The service receives its result as a
    /// message. It gets a panic of the job as [`Fault::Job`].
    ///
    /// # Errors
    /// [`Refused::Full`] gives the job back if too many wait.
    pub fn offload<M, F>(&mut self, job: F) -> Result<(), Refused<F>>
    where
        M: Received<S> + Send,
        F: FnOnce() -> M + Send + 'static,
    {
        let index = self.index as usize;
        let outstanding: u32 = self.core.records.iter().map(|record| record.jobs).sum();
        if outstanding as usize >= self.core.limits.jobs {
            return Err(Refused::Full(job));
        }
        let (mailbox, service, life) = (self.core.mailbox.clone(), self.index, self.life());
        let job = Kept::new(job);
        let run = move || {
            let result = Finished { life, what: Offloaded::of(|| job.into_inner()()) };
            // A service that is gone needs no result.
            let _ = mailbox.send_reserved(service, result, M::deliver_job());
        };
        let job = self.core.engine.host_mut().run_blocking(Box::new(run));
        if let Some(record) = self.core.records.get_mut(index) {
            record.jobs += 1;
        }
        // Room was checked above. The only remaining failure is the system's refusal of the first thread.
        if let Some(Err(refused)) = job.map(|job| self.core.jobs.run(job)) {
            let fault = Fault::Job(refused.to_string());
            self.core.faults_due.push(self.index, fault);
            if let Some(record) = self.core.records.get_mut(index) {
                record.jobs -= 1;
            }
        }
        Ok(())
    }
}
