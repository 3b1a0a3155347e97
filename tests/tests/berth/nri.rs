//! NRI plugins. At least as strict as critest's specs for NRI, which the version built by hack/tools does not have yet.

/// Adjustments and updates of containers by plugins.
mod adjust;
/// Events, their order, and the state of pods and containers during an event.
mod events;
/// OCI hooks that plugins add.
mod hooks;
/// Plugins that hang, die or send garbage.
mod misfits;
/// Plugins that connect late, are started by the daemon, or reconnect.
mod plugins;
