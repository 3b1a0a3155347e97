//! Which step an operation is at, so that a call that is cut off can say what it waited for.
//!
//! A call makes a [`Progress`] and runs its work [`Progress::during`] it; whatever the work does says [`at`] which step it
//! is. Work that goes on in a task of its own takes the progress along, and a call that joins another's work shows
//! that work's step.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
};

tokio::task_local! {
    static CURRENT: Progress;
}

/// The step that some work is at. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Step>>);

#[derive(Clone, Debug, Default)]
enum Step {
    #[default]
    Beginning,
    At(Cow<'static, str>),
    /// The same as other work that this one waits for.
    Like(Progress),
}

/// Says which step the current work is at, as a verb phrase: "attach to the network".
pub fn at(step: impl Into<Cow<'static, str>>) {
    // Work that nobody watches, such as recovery, has nobody to tell.
    let _ = CURRENT.try_with(|progress| progress.set(Step::At(step.into())));
}

impl Progress {
    /// That of the current work, or a new one that nobody watches.
    pub fn current() -> Self {
        CURRENT.try_with(Clone::clone).unwrap_or_default()
    }

    /// Runs `work` as what this shows.
    pub async fn during<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// Shows from now on what `other` shows.
    pub fn follow(&self, other: &Self) {
        if !Arc::ptr_eq(&self.0, &other.0) {
            self.set(Step::Like(other.clone()));
        }
    }

    /// The step, as a verb phrase; `None` before the first.
    pub fn step(&self) -> Option<Cow<'static, str>> {
        let step = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match step {
            Step::Beginning => None,
            Step::At(step) => Some(step),
            Step::Like(other) => other.step(),
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
        progress.clone().during(async { at("pull the rope") }).await;
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
