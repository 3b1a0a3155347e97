//! Rules as `iptables -S` prints them.

use std::fs;

use super::{Action, Chains, Fit, Outcome, Packet, Rule, walk};
use crate::Error;
use crate::bridge::program;

/// Finds the rule or policy that drops the packet in the legacy tables, which nft does not show.
pub(super) fn legacy_blocker(packet: Packet<'_>) -> Result<Option<String>, Error> {
    let tables = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    match tables.lines().any(|table| table == "filter") {
        true => blocker("iptables-legacy", packet),
        false => Ok(None),
    }
}

/// Finds the rule or policy that drops the packet among the rules that `program` lists.
pub(super) fn blocker(program: &str, packet: Packet<'_>) -> Result<Option<String>, Error> {
    let listed = program::run("look for rules that drop packets", &[program, "-w", "5", "-S"], "")?;
    let (chains, drops_by_policy) = read(&listed, packet);
    Ok(match walk(&chains, "FORWARD", 0) {
        Outcome::Dropped => Some(format!("a rule of chain FORWARD ({program})")),
        Outcome::Through if drops_by_policy => Some(format!("the policy of chain FORWARD ({program})")),
        _ => None,
    })
}

/// Reads the chains as they apply to `packet`, and whether the policy is to drop.
fn read(listed: &str, packet: Packet<'_>) -> (Chains, bool) {
    let mut chains = Chains::new();
    for line in listed.lines().filter_map(|line| line.strip_prefix("-A ")) {
        let (chain, rest) = line.split_once(' ').unwrap_or((line, ""));
        chains.entry(chain.to_owned()).or_default().push(rule(&words(rest), packet));
    }
    (chains, listed.lines().any(|line| line == "-P FORWARD DROP"))
}

fn rule(words: &[String], packet: Packet<'_>) -> Rule {
    let (mut fit, mut action, mut negated) = (Fit::Yes, Action::Nothing, false);
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        let condition = match word {
            "!" => {
                negated = true;
                continue;
            }
            "-i" => packet.comes_through(value()),
            "-o" => packet.leaves_through(value()),
            "-p" => Fit::of(["tcp", "all"].contains(&value())),
            "--ctstate" | "--state" => Fit::of(
                value().split(',').any(|state| state == "NEW" || state == "DNAT" && packet.is_published),
            ),
            "-j" => {
                action = jump(value(), Action::Jump);
                continue;
            }
            "-g" => {
                action = jump(value(), Action::Goto);
                continue;
            }
            // The name of a module, a comment and the kind of a reject are not conditions.
            "-m" | "--comment" | "--reject-with" => {
                value();
                continue;
            }
            option if option.starts_with('-') => Fit::Unknown,
            _ => continue,
        };
        fit = fit.and(if negated { condition.negated() } else { condition });
        negated = false;
    }
    Rule { fit, action }
}

fn jump(target: &str, to: fn(String) -> Action) -> Action {
    match target {
        "ACCEPT" => Action::Accept,
        "DROP" | "REJECT" => Action::Drop,
        "RETURN" => Action::Return,
        "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TCPMSS" | "CT" | "NOTRACK" => Action::Nothing,
        chain => to(chain.to_owned()),
    }
}

/// Splits a line into words; quoted words may hold spaces.
fn words(line: &str) -> Vec<String> {
    let quoted = line.split('"').enumerate();
    let words = quoted.flat_map(|(number, part)| match number % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: &str = r#"-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER-FORWARD
-N DOCKER-USER
-N DOCKER-CT
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -i docker0 -j ACCEPT
"#;

    fn out() -> Packet<'static> {
        Packet { iif: "berth0", oif: Some("eth0"), is_published: false }
    }

    fn inward() -> Packet<'static> {
        Packet { iif: "eth0", oif: Some("berth0"), is_published: true }
    }

    fn drops(listed: &str, packet: Packet<'_>) -> bool {
        let (chains, by_policy) = read(listed, packet);
        match walk(&chains, "FORWARD", 0) {
            Outcome::Dropped => true,
            Outcome::Through => by_policy,
            Outcome::Accepted => false,
        }
    }

    #[test]
    fn dockers_policy_drops_until_the_users_chain_accepts() {
        assert!(drops(DOCKER, out()) && drops(DOCKER, inward()));
        let both = "-A DOCKER-USER -i berth0 -j ACCEPT\n\
                    -A DOCKER-USER -o berth0 -m conntrack --ctstate DNAT -m comment --comment \"pods -j DROP\" -j ACCEPT\n";
        let accepted = DOCKER.to_owned() + both;
        assert!(!drops(&accepted, out()) && !drops(&accepted, inward()));
        let any = DOCKER.to_owned() + "-A DOCKER-USER -i berth+ -j ACCEPT\n";
        assert!(!drops(&any, out()) && drops(&any, inward()));
    }

    #[test]
    fn rules_drop_before_the_policy_accepts_and_a_return_goes_back() {
        let reject = "-P FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
                      -A FORWARD -p icmp -j ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n";
        assert!(drops(reject, out()));
        let other = "-P FORWARD ACCEPT\n-A FORWARD ! -i berth0 -j DROP\n-A FORWARD -i virbr0 -j DROP\n";
        assert!(!drops(other, out()) && drops(other, inward()));
        let back = "-P FORWARD ACCEPT\n-A FORWARD -j X\n-A X -i berth0 -j RETURN\n-A X -j DROP\n";
        assert!(!drops(back, out()) && drops(back, inward()));
    }

    #[test]
    fn what_is_not_known_is_to_the_packets_favour() {
        let unknown = "-P FORWARD DROP\n-A FORWARD -s 10.0.0.0/8 -j ACCEPT\n";
        assert!(!drops(unknown, out()));
        let unknown =
            "-P FORWARD ACCEPT\n-A FORWARD -m set --match-set bad src -j DROP\n-A FORWARD -j A\n-A A -j A\n";
        assert!(!drops(unknown, out()));
        assert!(!drops("", out()));
    }
}
