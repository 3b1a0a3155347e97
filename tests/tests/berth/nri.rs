//! At least as strict as critest's specs for NRI, which the version that we build does not have yet.

/// What plugins change of containers.
mod adjust;
/// Which events come, in which order, and what holds while they are told.
mod events;
/// Programs that plugins want run.
mod hooks;
/// Plugins that hang, die or talk nonsense.
mod misfits;
/// Plugins that come late, are started by the daemon, or come back.
mod plugins;
