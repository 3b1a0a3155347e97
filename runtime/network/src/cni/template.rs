//! Templates of network configurations, in the subset of Go's template language that such templates need, so that those
//! written for containerd work unchanged.
//!
//! ```text
//! {{.PodCIDR}}                                    the first range of the node's pods
//! {{range $i, $range := .PodCIDRRanges}}...{{end}}  for each range; .Routes likewise, for each default route
//! {{range .Routes}}{{.}}{{end}}                   the same without names
//! {{if $i}}...{{else}}...{{end}}                  unless it is empty or 0
//! {{/* ... */}}  {{- ... -}}                      a comment; without the white space around it
//! ```
//! Anything else is an error that names it.

use std::collections::HashMap;

/// Value of a name.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(usize),
    List(Vec<String>),
}

impl Value {
    fn is_set(&self) -> bool {
        match self {
            Value::Text(text) => !text.is_empty(),
            Value::Number(number) => *number != 0,
            Value::List(list) => !list.is_empty(),
        }
    }
}

/// Fills in `template`; `fields` are the values of `.Name`.
pub(super) fn render(template: &str, fields: &[(&str, Value)]) -> Result<String, String> {
    let mut parser = Parser(tokens(template)?.into_iter());
    let (nodes, end) = parser.nodes()?;
    if let Some(end) = end {
        return Err(format!("{{{{{end}}}}} without a beginning"));
    }
    let named = fields.iter().map(|(name, value)| (format!(".{name}"), value.clone()));
    let mut filled = String::new();
    write(&nodes, &named.collect(), &mut filled)?;
    Ok(filled)
}

enum Token<'a> {
    Text(&'a str),
    Action(&'a str),
}

fn tokens(mut rest: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    while let Some((text, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}").ok_or("{{ without }}")?;
        let marked = action.strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace));
        tokens.push(Token::Text(if marked.is_some() { text.trim_end() } else { text }));
        let action = marked.unwrap_or(action);
        let marked = action.strip_suffix('-').filter(|rest| rest.ends_with(char::is_whitespace));
        tokens.push(Token::Action(marked.unwrap_or(action).trim()));
        rest = if marked.is_some() { after.trim_start() } else { after };
    }
    tokens.push(Token::Text(rest));
    Ok(tokens)
}

enum Node<'a> {
    Text(&'a str),
    Show(&'a str),
    If { condition: &'a str, branches: Branches<'a> },
    Range { index: Option<&'a str>, item: Option<&'a str>, list: &'a str, branches: Branches<'a> },
}

/// The branches of an `if` or `range`; `other` is the part after `else`.
struct Branches<'a> {
    first: Vec<Node<'a>>,
    other: Vec<Node<'a>>,
}

struct Parser<'a>(std::vec::IntoIter<Token<'a>>);

impl<'a> Parser<'a> {
    /// Parses nodes up to the `end` or `else` of the enclosing action, and returns that word too.
    fn nodes(&mut self) -> Result<(Vec<Node<'a>>, Option<&'a str>), String> {
        let mut nodes = Vec::new();
        while let Some(token) = self.0.next() {
            match token {
                Token::Text(text) => nodes.push(Node::Text(text)),
                Token::Action(end @ ("end" | "else")) => return Ok((nodes, Some(end))),
                Token::Action(action) if action.starts_with("/*") && action.ends_with("*/") => {}
                Token::Action(action) => nodes.push(self.node(action)?),
            }
        }
        Ok((nodes, None))
    }

    fn node(&mut self, action: &'a str) -> Result<Node<'a>, String> {
        let unsupported = || format!("{{{{{action}}}}} is not supported");
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
        match word {
            "if" => {
                let condition = name(rest).ok_or_else(unsupported)?;
                Ok(Node::If { condition, branches: self.branches(action)? })
            }
            "range" => {
                let (index, item, list) = ranged(rest).ok_or_else(unsupported)?;
                Ok(Node::Range { index, item, list, branches: self.branches(action)? })
            }
            _ => Ok(Node::Show(name(action).ok_or_else(unsupported)?)),
        }
    }

    fn branches(&mut self, action: &str) -> Result<Branches<'a>, String> {
        let (first, mut end) = self.nodes()?;
        let mut other = Vec::new();
        if end == Some("else") {
            (other, end) = self.nodes()?;
        }
        match end {
            Some("end") => Ok(Branches { first, other }),
            _ => Err(format!("{{{{{action}}}}} without {{{{end}}}}")),
        }
    }
}

/// Parses `.`, `.Name` or `$name`.
fn name(text: &str) -> Option<&str> {
    let text = text.trim();
    let bare = text.strip_prefix(['.', '$'])?;
    let plain = bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (plain && text != "$").then_some(text)
}

type Ranged<'a> = (Option<&'a str>, Option<&'a str>, &'a str);

/// Parses the operand of a `range`: names of index and item, if given, and the list.
fn ranged(text: &str) -> Option<Ranged<'_>> {
    let Some((names, list)) = text.split_once(":=") else { return Some((None, None, name(text)?)) };
    let variable = |text| name(text).filter(|name| name.starts_with('$'));
    match names.split_once(',') {
        Some((index, item)) => Some((Some(variable(index)?), Some(variable(item)?), name(list)?)),
        None => Some((None, Some(variable(names)?), name(list)?)),
    }
}

/// Values by name as written: `.Name`, `$name`, and `.` itself inside a range.
type Scope = HashMap<String, Value>;

fn write(nodes: &[Node<'_>], scope: &Scope, filled: &mut String) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => filled.push_str(text),
            Node::Show(name) => match value(scope, name)? {
                Value::Text(text) => filled.push_str(text),
                Value::Number(number) => filled.push_str(&number.to_string()),
                Value::List(_) => return Err(format!("{{{{{name}}}}} is a list: it needs a range")),
            },
            Node::If { condition, branches } => {
                let Branches { first, other } = branches;
                write(if value(scope, condition)?.is_set() { first } else { other }, scope, filled)?;
            }
            Node::Range { index, item, list, branches } => {
                let Value::List(items) = value(scope, list)? else {
                    return Err(format!("{{{{range {list}}}}}: it is no list"));
                };
                write_each(items, (*index, *item), branches, scope, filled)?;
            }
        }
    }
    Ok(())
}

fn write_each(
    items: &[String],
    (index, item): (Option<&str>, Option<&str>),
    branches: &Branches<'_>,
    scope: &Scope,
    filled: &mut String,
) -> Result<(), String> {
    if items.is_empty() {
        return write(&branches.other, scope, filled);
    }
    for (number, text) in items.iter().enumerate() {
        let mut inner = scope.clone();
        inner.extend(index.map(|name| (name.to_owned(), Value::Number(number))));
        inner.extend(item.map(|name| (name.to_owned(), Value::Text(text.clone()))));
        inner.insert(".".to_owned(), Value::Text(text.clone()));
        write(&branches.first, &inner, filled)?;
    }
    Ok(())
}

fn value<'a>(scope: &'a Scope, name: &str) -> Result<&'a Value, String> {
    scope.get(name).ok_or_else(|| format!("{{{{{name}}}}} is not known here"))
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
