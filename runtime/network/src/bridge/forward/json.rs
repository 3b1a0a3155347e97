//! Rules as `nft -j` prints them.

use serde_json::Value;

use super::{Action, Chains, Fit, Outcome, Packet, Rule, iptables, walk};
use crate::Error;
use crate::bridge::program;

/// A base chain at the forward hook.
struct Base<'a> {
    family: &'a str,
    table: &'a str,
    chain: &'a str,
    drops_by_policy: bool,
}

/// Finds the rule or policy that drops the packet in the tables of nftables, except `own_table`.
pub(super) fn blocker(packet: Packet<'_>, own_table: &str) -> Result<Option<String>, Error> {
    let all = list(&["chains"])?;
    for base in objects(&all, "chain").filter_map(base).filter(|base| base.table != own_table) {
        // Rules of iptables-nft hold parts that only iptables can show.
        if (base.family, base.table, base.chain) == ("ip", "filter", "FORWARD")
            && let Ok(by) = iptables::blocker("iptables-nft", packet)
        {
            match by {
                None => continue,
                by => return Ok(by),
            }
        }
        let table = list(&["table", base.family, base.table])?;
        let Base { family, table: name, chain, .. } = base;
        match walk(&read(&table, packet), chain, 0) {
            Outcome::Dropped => return Ok(Some(format!("a rule of chain {chain} of table {family} {name}"))),
            Outcome::Through if base.drops_by_policy => {
                return Ok(Some(format!("the policy of chain {chain} of table {family} {name}")));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Runs `nft list` without the elements of sets (`-t`), of which there may be many.
fn list(what: &[&str]) -> Result<Value, Error> {
    let purpose = "look for rules that drop packets";
    let words = [&["nft", "-j", "-t", "list"][..], what].concat();
    let listed = program::run(purpose, &words, "")?;
    serde_json::from_str(&listed).map_err(|error| Error::Program {
        program: words.join(" "),
        purpose,
        message: format!("prints no JSON: {error}"),
    })
}

fn objects<'a>(listed: &'a Value, kind: &'static str) -> impl Iterator<Item = &'a Value> {
    listed["nftables"].as_array().into_iter().flatten().filter_map(move |object| object.get(kind))
}

fn base(chain: &Value) -> Option<Base<'_>> {
    let family = chain["family"].as_str().filter(|family| ["ip", "inet"].contains(family))?;
    let sees = chain["hook"] == "forward" && chain["type"] == "filter";
    sees.then_some(Base {
        family,
        table: chain["table"].as_str()?,
        chain: chain["name"].as_str()?,
        drops_by_policy: chain["policy"] == "drop",
    })
}

fn read(table: &Value, packet: Packet<'_>) -> Chains {
    let mut chains = Chains::new();
    for rule in objects(table, "rule") {
        let chain = rule["chain"].as_str().unwrap_or_default();
        chains.entry(chain.to_owned()).or_default().push(read_rule(&rule["expr"], packet));
    }
    chains
}

fn read_rule(expressions: &Value, packet: Packet<'_>) -> Rule {
    let (mut fit, mut action) = (Fit::Yes, Action::Nothing);
    let parts = expressions.as_array().into_iter().flatten().filter_map(|one| one.as_object()?.iter().next());
    for (kind, body) in parts {
        let target = || body["target"].as_str().unwrap_or_default().to_owned();
        match kind.as_str() {
            "match" => fit = fit.and(condition(body, packet)),
            "accept" => action = Action::Accept,
            "drop" | "reject" => action = Action::Drop,
            "return" => action = Action::Return,
            "jump" => action = Action::Jump(target()),
            "goto" => action = Action::Goto(target()),
            "counter" | "log" | "comment" => {}
            _ => fit = fit.and(Fit::Unknown),
        }
    }
    Rule { fit, action }
}

fn condition(body: &Value, packet: Packet<'_>) -> Fit {
    let (left, right) = (&body["left"], &body["right"]);
    let known = |test: &dyn Fn(&str) -> Fit| any_of(right, test);
    let fit =
        match (left["meta"]["key"].as_str(), left["ct"]["key"].as_str(), left["payload"]["field"].as_str()) {
            (Some("iifname" | "iif"), ..) => known(&|name| packet.comes_through(name)),
            (Some("oifname" | "oif"), ..) => known(&|name| packet.leaves_through(name)),
            (Some("l4proto"), ..) | (.., Some("protocol")) => known(&|protocol| Fit::of(protocol == "tcp")),
            (_, Some("state"), _) => known(&|state| Fit::of(state == "new")),
            (_, Some("status"), _) => known(&|status| Fit::of(status == "dnat" && packet.is_published)),
            _ => Fit::Unknown,
        };
    if body["op"] == "!=" { fit.negated() } else { fit }
}

/// Tests one value, or any of a list or set; the elements of a named set are unknown.
fn any_of(right: &Value, test: &dyn Fn(&str) -> Fit) -> Fit {
    match right {
        Value::String(value) if value.starts_with('@') => Fit::Unknown,
        Value::String(value) => test(value),
        Value::Array(values) => values.iter().map(|value| any_of(value, test)).max().unwrap_or(Fit::No),
        Value::Object(object) => object.get("set").map_or(Fit::Unknown, |set| any_of(set, test)),
        _ => Fit::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn out() -> Packet<'static> {
        Packet { iif: "berth0", oif: Some("eth0"), is_published: false }
    }

    fn interface(key: &str, op: &str, right: Value) -> Value {
        json!({"match": {"op": op, "left": {"meta": {"key": key}}, "right": right}})
    }

    fn fit(conditions: &[Value]) -> Fit {
        read_rule(&json!(conditions), out()).fit
    }

    #[test]
    fn conditions_on_interfaces_are_known() {
        assert_eq!(fit(&[]), Fit::Yes);
        assert_eq!(fit(&[interface("iifname", "==", json!("berth0"))]), Fit::Yes);
        assert_eq!(fit(&[interface("iifname", "==", json!("ber*"))]), Fit::Yes);
        assert_eq!(fit(&[interface("iifname", "!=", json!("berth0"))]), Fit::No);
        assert_eq!(fit(&[interface("oifname", "==", json!({"set": ["docker0", "eth0"]}))]), Fit::Yes);
        assert_eq!(fit(&[interface("oifname", "==", json!("docker0"))]), Fit::No);
        assert_eq!(fit(&[interface("oifname", "==", json!("@outer"))]), Fit::Unknown);
        assert_eq!(fit(&[json!({"xt": null}), interface("oifname", "==", json!("docker0"))]), Fit::No);
        assert_eq!(fit(&[json!({"xt": null}), json!({"counter": {"packets": 0}})]), Fit::Unknown);
    }

    #[test]
    fn only_the_first_packet_of_a_connection_counts() {
        let state = |right| json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": right}});
        assert_eq!(fit(&[state(json!(["established", "related"]))]), Fit::No);
        assert_eq!(fit(&[state(json!(["established", "new"]))]), Fit::Yes);
        let status = json!({"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}});
        assert_eq!(fit(std::slice::from_ref(&status)), Fit::No);
        let inward = Packet { iif: "eth0", oif: Some("berth0"), is_published: true };
        assert_eq!(read_rule(&json!([status]), inward).fit, Fit::Yes);
    }

    #[test]
    fn chains_that_see_what_is_forwarded_are_found() {
        let listed = json!({"nftables": [
            {"metainfo": {}},
            {"chain": {"family": "ip", "table": "a", "name": "f", "type": "filter", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip6", "table": "b", "name": "f", "type": "filter", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "c", "name": "i", "type": "filter", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "d", "name": "plain"}},
        ]});
        let found: Vec<_> = objects(&listed, "chain").filter_map(base).map(|base| base.table).collect();
        assert_eq!(found, ["a"]);
    }
}
