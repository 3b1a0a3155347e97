//! Parsing of the section; an error names the member that is wrong.

use super::Error;
use super::architecture::{Architecture, Named};
use serde::Deserialize;

/// The kernel's largest error number.
const MAX_ERRNO: u32 = 4095;
/// Number of arguments of a system call.
const ARGUMENTS: usize = 6;
const EPERM: u32 = libc::EPERM as u32;

/// A parsed section.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Profile {
    /// Action without a matching rule.
    pub(super) default: Action,
    /// Architectures whose programs may run, the native one first. Programs of others are killed at their first system call.
    pub(super) architectures: Vec<Architecture>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(super) flags: u32,
    /// In the order given.
    pub(super) rules: Vec<Rule>,
}

/// Action of the kernel: `SECCOMP_RET_*`, with the error number in its lower half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Action(pub(super) u32);

impl Action {
    pub(super) const KILL_PROCESS: Self = Self(0x8000_0000);
    pub(super) const ENOSYS: Self = Self(0x0005_0000 | libc::ENOSYS as u32);

    /// Whether the call is executed.
    pub(super) fn passes(self) -> bool {
        matches!(self.0 & 0xffff_0000, 0x7fff_0000 | 0x7ffc_0000)
    }

    /// Whether the call is executed, or decided by a tracer.
    pub(super) fn is_permissive(self) -> bool {
        self.0 & 0xffff_0000 >= 0x7ff0_0000 && self != Self::KILL_PROCESS
    }
}

/// An action for some system calls.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// Unknown names are no error: they belong to newer kernels or other architectures.
    pub(super) names: Vec<String>,
    pub(super) action: Action,
    /// Alternatives, each a set of conditions that must all hold; empty means always.
    pub(super) conditions: Vec<Vec<Condition>>,
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u32,
    pub(super) comparison: Comparison,
    pub(super) value: u64,
}

/// How an argument is compared with the condition's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Equal after masking the argument with these bits.
    MaskedEqual(u64),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Section {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    flags: Option<Vec<String>>,
    syscalls: Option<Vec<Syscall>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syscall {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: usize,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

impl Profile {
    /// Reads the JSON of a section.
    pub(super) fn parse(section: &str) -> Result<Self, Error> {
        let section: Section =
            serde_json::from_str(section).map_err(|error| Error::Malformed(error.to_string()))?;
        let rules = section.syscalls.unwrap_or_default().into_iter().enumerate();
        Ok(Self {
            default: action("", "default", &section.default_action, section.default_errno_ret)?,
            architectures: architectures(&section.architectures.unwrap_or_default())?,
            flags: flags(&section.flags.unwrap_or_default())?,
            rules: rules
                .map(|(at, syscall)| rule(&format!("syscalls[{at}]."), syscall))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn rule(at: &str, syscall: Syscall) -> Result<Rule, Error> {
    if syscall.names.is_empty() {
        return Err(invalid(format!("{at}names"), "[]", "names no system call"));
    }
    let arguments = syscall.args.unwrap_or_default().into_iter().enumerate();
    let conditions: Vec<_> = arguments
        .map(|(number, argument)| condition(&format!("{at}args[{number}]."), &argument))
        .collect::<Result<_, _>>()?;
    let repeated = |one: &Condition| conditions.iter().filter(|c| c.argument == one.argument).count() > 1;
    Ok(Rule {
        names: syscall.names,
        action: action(at, "", &syscall.action, syscall.errno_ret)?,
        // Two conditions on one argument are alternatives: all runtimes have always read profiles in this way.
        conditions: match conditions.as_slice() {
            [] => Vec::new(),
            all if all.iter().any(repeated) => conditions.iter().map(|one| vec![*one]).collect(),
            _ => vec![conditions],
        },
    })
}

/// `prefix` is `default` if the members are `defaultAction` and `defaultErrnoRet`.
fn action(at: &str, prefix: &str, name: &str, errno: Option<u32>) -> Result<Action, Error> {
    let field =
        |plain: &str, prefixed: &str| format!("{at}{}", if prefix.is_empty() { plain } else { prefixed });
    let bits = match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => Action::KILL_PROCESS.0,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_NOTIFY" => {
            return Err(invalid(
                field("action", "defaultAction"),
                name,
                "is not supported: no agent is asked",
            ));
        }
        _ => return Err(invalid(field("action", "defaultAction"), name, "is no action")),
    };
    let errno_field = || field("errnoRet", "defaultErrnoRet");
    match errno {
        None if matches!(name, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") => Ok(Action(bits | EPERM)),
        None => Ok(Action(bits)),
        Some(errno) if !matches!(name, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") => {
            Err(invalid(errno_field(), errno, "is for SCMP_ACT_ERRNO and SCMP_ACT_TRACE only"))
        }
        Some(errno) if errno > MAX_ERRNO => Err(invalid(errno_field(), errno, "must be 4095 at most")),
        Some(errno) => Ok(Action(bits | errno)),
    }
}

fn architectures(names: &[String]) -> Result<Vec<Architecture>, Error> {
    let mut found = vec![Architecture::NATIVE];
    for (at, name) in names.iter().enumerate() {
        match Architecture::named(name) {
            Some(Named::Known(one)) if !found.contains(&one) => found.push(one),
            Some(_) => {}
            None => return Err(invalid(format!("architectures[{at}]"), name, "is no architecture")),
        }
    }
    Ok(found)
}

fn flags(names: &[String]) -> Result<u32, Error> {
    let mut flags = 0;
    for (at, name) in names.iter().enumerate() {
        flags |= match name.as_str() {
            "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG as u32,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32,
            // Without effect: the one is about other threads, of which there are none, the other about SCMP_ACT_NOTIFY,
            // which is refused.
            "SECCOMP_FILTER_FLAG_TSYNC" | "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 0,
            _ => return Err(invalid(format!("flags[{at}]"), name, "is no flag")),
        };
    }
    Ok(flags)
}

fn condition(at: &str, argument: &Argument) -> Result<Condition, Error> {
    use Comparison::*;
    if argument.index >= ARGUMENTS {
        return Err(invalid(format!("{at}index"), argument.index, "must be 5 at most"));
    }
    let (comparison, value) = match argument.op.as_str() {
        "SCMP_CMP_EQ" => (Equal, argument.value),
        "SCMP_CMP_NE" => (NotEqual, argument.value),
        "SCMP_CMP_LT" => (Less, argument.value),
        "SCMP_CMP_LE" => (LessOrEqual, argument.value),
        "SCMP_CMP_GT" => (Greater, argument.value),
        "SCMP_CMP_GE" => (GreaterOrEqual, argument.value),
        "SCMP_CMP_MASKED_EQ" => (MaskedEqual(argument.value), argument.value_two & argument.value),
        _ => return Err(invalid(format!("{at}op"), &argument.op, "is no operator")),
    };
    Ok(Condition { argument: argument.index as u32, comparison, value })
}

fn invalid(field: String, value: impl ToString, reason: &'static str) -> Error {
    Error::Invalid { field, value: value.to_string(), reason }
}

#[cfg(test)]
mod tests;
