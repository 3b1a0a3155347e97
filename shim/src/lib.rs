//! Berth's shim: one small process per pod that owns its namespaces, cgroups and stdio.
