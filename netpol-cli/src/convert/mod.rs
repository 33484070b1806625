//! `netpol convert`: policies of one API as objects of another.
//!
//! A target is a variant of [`Target`], a module here, and a conversion in `netpol-k8s`, which decides what the objects are.

mod cnp;
mod v1;

use crate::args::{ConvertArgs, ObjectFormat, Target};
use crate::{Answer, Failure, load, terminal};
use netpol_k8s::{Diagnostic, Severity};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Write;

/// What came of a conversion.
struct Converted {
    /// The objects, each with `apiVersion` and `kind`.
    objects: Vec<Value>,
    /// An error for each thing that could not be carried over; a warning for what is different.
    notes: Vec<Diagnostic>,
}

pub(crate) fn run(args: &ConvertArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let manifests = load::read_and_report(&args.input)?;
    let Converted { objects, notes } = match args.to {
        Target::V1 => v1::convert(&manifests)?,
        Target::Cnp => cnp::convert(&manifests)?,
    };
    for note in &notes {
        eprintln!("{}", terminal::printable(&note.to_string()));
        if let Some(hint) = note.hint() {
            eprintln!("  help: {}", terminal::printable(hint));
        }
    }
    if objects.is_empty() {
        eprintln!("netpol: there is nothing to convert");
    }
    match args.output {
        ObjectFormat::Yaml => {
            for object in &objects {
                writeln!(out, "---\n{}", yaml(object)?.trim_end())?;
            }
        }
        ObjectFormat::Json => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
            serde_json::to_writer_pretty(&mut *out, &list).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
    }
    let complete = notes.iter().all(|note| note.severity() == Severity::Warning);
    Ok(if complete { Answer::Yes } else { Answer::No })
}

/// Typed objects as they go over the wire.
fn objects<T: Serialize>(objects: &[T]) -> Result<Vec<Value>, Failure> {
    let values = objects.iter().map(serde_json::to_value).collect::<Result<_, _>>();
    values.map_err(|error| Failure::Message(format!("an object cannot be written: {error}")))
}

/// An object as YAML that means the same to readers of 1.1 and of 1.2.
fn yaml(object: &Value) -> Result<String, Failure> {
    let options =
        serde_saphyr::ser_options! { compact_list_indent: true, prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(object, options)
        .map_err(|error| Failure::Message(format!("an object cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts that some reader of YAML takes for something else.
    #[test]
    fn texts_stay_texts() {
        let odd = [
            "on",
            "Off",
            "y",
            "N",
            "yes",
            "no",
            "true",
            "null",
            "~",
            "",
            "0",
            "0777",
            "0o17",
            "0x1f",
            "1e3",
            "1_000",
            "12:30:45",
            "1.5",
            ".inf",
            "2016-07-01",
            "- a",
            "a: b",
            "a #b",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "{a",
            "[a",
            "'",
            "\"",
            "a\nb",
            " a ",
            "|",
            ">",
            "=",
            "<<",
            "---",
            "...",
            "?",
            ":",
            "-",
            "é",
            "\u{1}",
        ];
        for text in odd {
            let labels = json!({"metadata": {"labels": {text: text}}, "list": [text]});
            let written = yaml(&labels).unwrap_or_default();
            let namespace = format!("apiVersion: v1\nkind: Namespace\n{written}");
            let mut reader = netpol_k8s::Reader::new();
            reader.read_text("f", &namespace.replace("metadata:", "metadata:\n  name: shop"));
            let manifests = reader.finish();
            let namespace = manifests.cluster().namespaces().next();
            let value = namespace.and_then(|n| n.labels().value(text).map(str::to_owned));
            assert_eq!(value.as_deref(), Some(text), "{text:?} in\n{written}");
        }
    }
}
