//! Execution domains, personality(2): the kind of system a process sees.

use super::{Error, Step};
use crate::spec::Personality;

/// The kernel's number for a personality.
pub(super) fn of(asked: &Personality) -> Result<u32, Error> {
    let invalid = |member: &str, value: &str| {
        Err(Error::invalid(Step::Process, format!("linux.personality.{member} {value:?}")))
    };
    match (asked.domain.as_str(), asked.flags.first()) {
        (_, Some(flag)) => invalid("flags", flag),
        ("LINUX", None) => Ok(0),
        ("LINUX32", None) => Ok(8),
        (other, None) => invalid("domain", other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_one_of_two_and_has_no_flags() {
        let of = |domain: &str, flags: &[&str]| {
            let flags = flags.iter().map(|flag| flag.to_string()).collect();
            of(&Personality { domain: domain.into(), flags })
        };
        assert_eq!((of("LINUX", &[]), of("LINUX32", &[])), (Ok(0), Ok(8)));
        for (domain, flags, named) in
            [("", &[][..], "domain \"\""), ("BSD", &[], "BSD"), ("LINUX", &["X"], "flags \"X\"")]
        {
            assert!(of(domain, flags).is_err_and(|error| error.to_string().contains(named)), "{domain}");
        }
    }
}
