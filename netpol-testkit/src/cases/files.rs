//! Case files: every document of one is a case.

use super::document::read_document;
use super::{Case, Origin};
use std::path::Path;
use std::sync::Arc;

/// A case file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {message}")]
pub struct LoadError {
    place: String,
    message: String,
}

/// All cases of all `*.yaml` files of a directory, by file name.
///
/// # Errors
///
/// The first file that cannot be read or is not as the format asks, with line, case and reason.
pub fn load_dir(directory: impl AsRef<Path>) -> Result<Vec<Case>, LoadError> {
    let directory = directory.as_ref();
    let failed = |e: std::io::Error| LoadError {
        place: directory.display().to_string(),
        message: e.to_string(),
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        cases.extend(load(path)?);
    }
    Ok(cases)
}

/// The cases of one file.
///
/// # Errors
///
/// As [`load_dir`].
pub fn load(path: impl AsRef<Path>) -> Result<Vec<Case>, LoadError> {
    let path = path.as_ref();
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let text = std::fs::read_to_string(path)
        .map_err(|e| LoadError { place: path.display().to_string(), message: e.to_string() })?;
    parse(&name, &text)
}

/// The cases in the text of a file that is called `file`.
///
/// # Errors
///
/// As [`load_dir`].
pub fn parse(file: &str, text: &str) -> Result<Vec<Case>, LoadError> {
    let file: Arc<str> = file.into();
    let mut cases = Vec::new();
    let mut start = 0;
    let lines: Vec<&str> = text.lines().collect();
    for document in lines.split(|line| line.trim_end() == "---") {
        let is_content = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
        if let Some(first) = document.iter().position(is_content) {
            // Empty lines in place of what comes before keep the line numbers of errors right.
            let padded = "\n".repeat(start) + &document.join("\n");
            let read = read_document(&padded).and_then(|(case, title, rest)| {
                let line = start + first + 1;
                let origin = Origin { file: Arc::clone(&file), line, case, title };
                Case::new(origin, rest)
            });
            cases.push(read.map_err(|message| LoadError {
                place: format!("{file}:{}: case {}", start + first + 1, cases.len() + 1),
                message,
            })?);
        }
        start += document.len() + 1;
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_files_name_file_line_and_case() {
        for (text, expected) in [
            (
                "case: A\ntitle: t\n---\n\ncase: B\ntitle: t\nexpects: []\n",
                "f.yaml:1: case 1: A: t: nothing is expected",
            ),
            (
                "case: A\ntitle: t\nexpect: [{x: allowed}]\n",
                "f.yaml:1: case 1: A: t: `x` is not `SRC",
            ),
            ("case: A\ntitle: t\nexpect: [{'* -> * 1/TCP': maybe}]\n", "f.yaml:1: case 1: "),
            ("# c\n---\ncase: A\ntitle: t\nexpects: []\n", "f.yaml:3: case 1: "),
            ("case: A\ntitle: t\nexpect: []\nsteps: []\n", "`steps` take the place"),
            (
                "case: A\ntitle: t\nsteps: [{expect: [{a: denied, b: denied}]}]\n",
                "step 1: an entry of",
            ),
        ] {
            let error = parse("f.yaml", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}\n{error}");
        }
        let error = parse("f.yaml", "case: A\ntitle: [\n").unwrap_err().to_string();
        assert!(error.contains("line"), "{error}");
        let error = load("no-such-file.yaml").unwrap_err().to_string();
        assert!(error.starts_with("no-such-file.yaml: "), "{error}");
    }

    #[test]
    fn every_case_file_can_be_loaded() {
        let cases = load_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../cases")).unwrap();
        assert!(cases.iter().all(|case| case.steps() > 0 && case.rules().count() > 0));
        assert!(!cases.is_empty());
    }
}
