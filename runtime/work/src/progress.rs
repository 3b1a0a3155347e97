//! The step that an operation is at, so that a call that times out can say what it waited for.
//!
//! A call makes a [`Progress`] and runs its work in its [`Progress::scope`]; the work reports its steps with [`at`].
//! Work that is moved to another task takes the progress along, and a call that joins other work shows that work's
//! step.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
};

tokio::task_local! {
    static CURRENT: Progress;
}

/// The current step of some work. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Step>>);

#[derive(Clone, Debug, Default)]
enum Step {
    #[default]
    NotStarted,
    At(Cow<'static, str>),
    /// The step of other work that this one waits for.
    Following(Progress),
}

/// Sets the step of the current work, as a verb phrase: "attach to the network".
pub fn at(step: impl Into<Cow<'static, str>>) {
    // Work outside of a call, such as recovery, has no progress to update.
    let _ = CURRENT.try_with(|progress| progress.set(Step::At(step.into())));
}

impl Progress {
    /// Returns the progress of the current work, or a new one outside of a call.
    pub fn current() -> Self {
        CURRENT.try_with(Clone::clone).unwrap_or_default()
    }

    /// Runs `work` with this as its current progress.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// From now on shows the step of `other`.
    pub fn follow(&self, other: &Self) {
        if !Arc::ptr_eq(&self.0, &other.0) {
            self.set(Step::Following(other.clone()));
        }
    }

    /// Returns the step, as a verb phrase; `None` before the first.
    pub fn step(&self) -> Option<Cow<'static, str>> {
        let step = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match step {
            Step::NotStarted => None,
            Step::At(step) => Some(step),
            Step::Following(other) => other.step(),
        }
    }

    fn set(&self, step: Step) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_step_of_watched_work_is_seen_from_outside() {
        let progress = Progress::default();
        assert_eq!(progress.step(), None);
        progress.clone().scope(async { at("pull the rope") }).await;
        assert_eq!(progress.step().as_deref(), Some("pull the rope"));
    }

    #[tokio::test]
    async fn work_that_nobody_watches_may_tell_its_steps_too() {
        at("whistle");
        assert_eq!(Progress::current().step(), None);
    }

    #[test]
    fn whoever_follows_shows_the_step_of_the_other_but_never_itself() {
        let (one, other) = (Progress::default(), Progress::default());
        one.follow(&other);
        one.follow(&one.clone());
        other.set(Step::At("dig".into()));
        assert_eq!(one.step().as_deref(), Some("dig"));
    }
}
