//! Profiles in files: in the form of `linux.seccomp` of the OCI runtime specification, or in Docker's, whose rules may
//! depend on capabilities, architectures and kernel versions.

use std::str::FromStr;

use oci_spec::runtime::{Arch, Capabilities, Capability, LinuxSeccompArg, LinuxSyscall};
use serde::Deserialize;

use super::{COMPAT_ARCHITECTURES, Conditions, NATIVE_ARCHITECTURE, Profile, Rule, argument};

/// Greatest error number of the kernel (MAX_ERRNO).
const MAX_ERRNO: u32 = 4095;
/// Number of arguments of a system call.
const SYSCALL_ARGUMENTS: usize = 6;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<String>>,
    #[serde(default)]
    listener_path: String,
    #[serde(default)]
    listener_metadata: String,
    syscalls: Option<Vec<Syscall>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syscall {
    #[serde(default)]
    name: String,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: usize,
    value: u64,
    value_two: Option<u64>,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl Profile {
    /// Parses a profile. The error names the invalid field.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let flags = file.flags.unwrap_or_default();
        let rules = file.syscalls.unwrap_or_default().into_iter().enumerate();
        Ok(Self {
            action: known("defaultAction", &file.default_action)?,
            errno: errno("defaultErrnoRet", file.default_errno_ret, &file.default_action)?,
            architectures: architectures(file.architectures, file.arch_map)?,
            flags: each("flags", &flags, |at, flag| known(at, flag))?,
            listener: (file.listener_path, file.listener_metadata),
            rules: rules.map(|(at, call)| call.rule(&format!("syscalls[{at}]"))).collect::<Result<_, _>>()?,
        })
    }
}

impl Syscall {
    fn rule(self, at: &str) -> Result<Rule, String> {
        let names = match (self.name, self.names.unwrap_or_default()) {
            (name, names) if name.is_empty() && !names.is_empty() => names,
            (name, names) if !name.is_empty() && names.is_empty() => vec![name],
            (name, _) => return Err(format!("{at}.name {name:?}: there must be either name or names")),
        };
        let args = self.args.unwrap_or_default();
        let args = each(&format!("{at}.args"), &args, Argument::checked)?;
        let mut calls = LinuxSyscall::default();
        calls
            .set_names(names)
            .set_action(known(&format!("{at}.action"), &self.action)?)
            .set_errno_ret(errno(&format!("{at}.errnoRet"), self.errno_ret, &self.action)?)
            .set_args(None);
        let rule = Rule {
            calls,
            only: self.includes.unwrap_or_default().circumstances(&format!("{at}.includes"))?,
            unless: self.excludes.unwrap_or_default().circumstances(&format!("{at}.excludes"))?,
        };
        Ok(rule.with(args))
    }
}

impl Argument {
    fn checked(at: &str, given: &Self) -> Result<LinuxSeccompArg, String> {
        if given.index >= SYSCALL_ARGUMENTS {
            return Err(format!("{at}.index {}: must be 5 at most", given.index));
        }
        let op = known(&format!("{at}.op"), &given.op)?;
        Ok(argument(given.index, given.value, given.value_two, op))
    }
}

impl Filter {
    fn circumstances(self, at: &str) -> Result<Conditions, String> {
        let kernel = self.min_kernel.filter(|version| !version.is_empty());
        let capabilities = self.caps.unwrap_or_default();
        let capabilities = each(&format!("{at}.caps"), &capabilities, |at, name| {
            known::<Capability>(at, name.strip_prefix("CAP_").unwrap_or_default())
                .map_err(|_| format!("{at} {name:?}: is unknown"))
        });
        Ok(Conditions {
            capabilities: Capabilities::from_iter(capabilities?),
            architectures: self.arches.unwrap_or_default(),
            kernel: kernel.map(|version| version_of(&format!("{at}.minKernel"), &version)).transpose()?,
        })
    }
}

/// Returns the architectures of this machine. Docker's form lists them separately for each native architecture.
fn architectures(plain: Option<Vec<String>>, map: Option<Vec<ArchMap>>) -> Result<Vec<Arch>, String> {
    let (plain, map) = (plain.unwrap_or_default(), map.unwrap_or_default());
    if !plain.is_empty() && !map.is_empty() {
        return Err("archMap: architectures are given too".to_owned());
    }
    let mut found: Vec<Arch> = each("architectures", &plain, |at, name| known(at, name))?;
    for (number, entry) in map.into_iter().enumerate() {
        let at = format!("archMap[{number}]");
        let below = entry.sub_architectures.unwrap_or_default();
        let below = each(&format!("{at}.subArchitectures"), &below, |at, name| known(at, name))?;
        if known::<Arch>(&format!("{at}.architecture"), &entry.architecture)? == NATIVE_ARCHITECTURE {
            found.push(NATIVE_ARCHITECTURE);
            found.extend::<Vec<Arch>>(below);
        }
    }
    found.retain(|one| {
        *one == NATIVE_ARCHITECTURE || *one == Arch::ScmpArchNative || COMPAT_ARCHITECTURES.contains(one)
    });
    Ok(found)
}

fn errno(at: &str, errno: Option<u32>, action: &str) -> Result<Option<u32>, String> {
    match errno {
        Some(errno) if !matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") => {
            Err(format!("{at} {errno}: is for SCMP_ACT_ERRNO and SCMP_ACT_TRACE only"))
        }
        Some(errno) if errno > MAX_ERRNO => Err(format!("{at} {errno}: must be {MAX_ERRNO} at most")),
        errno => Ok(errno),
    }
}

/// Parses `4.8` to (4, 8).
fn version_of(at: &str, version: &str) -> Result<(u32, u32), String> {
    let numbers =
        version.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.ok_or_else(|| format!("{at} {version:?}: must be like 4.8"))
}

fn known<T: FromStr>(at: &str, name: &str) -> Result<T, String> {
    name.parse().map_err(|_| format!("{at} {name:?}: is unknown"))
}

fn each<F, T>(at: &str, list: &[F], one: impl Fn(&str, &F) -> Result<T, String>) -> Result<Vec<T>, String> {
    list.iter().enumerate().map(|(number, item)| one(&format!("{at}[{number}]"), item)).collect()
}
