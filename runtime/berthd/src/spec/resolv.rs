//! Contents of the files in /etc that a pod's containers share: resolv.conf, hosts and hostname.

use std::net::IpAddr;

use super::Error;
use berth_network::Dns;

/// Longest host name that the kernel accepts, in bytes.
const MAX_HOSTNAME_BYTES: usize = 64;

/// Returns /etc/resolv.conf: the settings of `dns`, which may be empty, or the host's text for `None`.
pub fn resolv_conf(dns: Option<&Dns>, host: &str) -> Result<String, Error> {
    let Some(dns) = dns else { return Ok(host.to_owned()) };
    dns.servers.iter().try_for_each(|server| address(server))?;
    dns.searches.iter().try_for_each(|domain| word("dns searches", domain))?;
    dns.options.iter().try_for_each(|option| word("dns options", option))?;
    let servers = dns.servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    Ok([line("search", &dns.searches), servers, line("options", &dns.options)].concat())
}

/// Returns the host's resolv.conf for a pod with its own network, without servers on loopback addresses, which the pod
/// cannot reach. If no server remains, `upstream` is used: the file in which a local resolver lists the servers that it
/// asks.
pub fn beyond_loopback(host: &str, upstream: impl FnOnce() -> String) -> String {
    let without = |text: &str| {
        let kept = text.lines().filter(|line| !server(line).is_some_and(is_local));
        kept.map(|line| format!("{line}\n")).collect::<String>()
    };
    let of_host = without(host);
    if has_server(&of_host) {
        return of_host;
    }
    let of_upstream = without(&upstream());
    if has_server(&of_upstream) { of_upstream } else { of_host }
}

/// Whether a resolver would find a name server in the text.
pub fn has_server(text: &str) -> bool {
    text.lines().any(|line| server(line).is_some())
}

/// Returns the address of a `nameserver` line, resolv.conf(5).
fn server(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    let server = words.next().filter(|word| *word == "nameserver").and(words.next())?;
    server.split('%').next()?.parse().ok()
}

/// An unspecified address also means the local machine.
fn is_local(server: IpAddr) -> bool {
    let server = server.to_canonical();
    server.is_loopback() || server.is_unspecified()
}

fn line(key: &str, words: &[String]) -> String {
    match words {
        [] => String::new(),
        words => format!("{key} {}\n", words.join(" ")),
    }
}

/// An IP address; an IPv6 one may have a zone.
fn address(server: &str) -> Result<(), Error> {
    let (plain, link) = server.split_once('%').unwrap_or((server, "-"));
    word("dns servers", link)?;
    plain
        .parse::<IpAddr>()
        .map(drop)
        .map_err(|_| Error::invalid("dns servers", server, "is not an IP address"))
}

/// Refuses text that would end the word or the line, and so change the file's meaning.
fn word(field: &'static str, text: &str) -> Result<(), Error> {
    match text.is_empty() || text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        true => Err(Error::invalid(field, text, "is not one word")),
        false => Ok(()),
    }
}

/// Returns /etc/hosts for a pod with its own network. A pod on the host's network gets the host's file.
pub fn hosts(hostname: &str, addresses: &[IpAddr]) -> String {
    let own = addresses.iter().map(|address| format!("{address}\t{hostname}\n"));
    let known = "127.0.0.1\tlocalhost\n\
                 ::1\tlocalhost ip6-localhost ip6-loopback\n\
                 fe00::0\tip6-localnet\n\
                 ff00::0\tip6-mcastprefix\n\
                 ff02::1\tip6-allnodes\n\
                 ff02::2\tip6-allrouters\n";
    [known.to_owned()].into_iter().chain(own).collect()
}

/// Returns /etc/hostname. Fails for a name that the kernel does not accept, or that would change the meaning of the
/// other files.
pub fn hostname(name: &str) -> Result<String, Error> {
    word("hostname", name)?;
    match name.len() > MAX_HOSTNAME_BYTES {
        true => Err(Error::invalid("hostname", name, format!("is longer than {MAX_HOSTNAME_BYTES} bytes"))),
        false => Ok(format!("{name}\n")),
    }
}

#[cfg(test)]
mod tests;
