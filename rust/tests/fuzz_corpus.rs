//! The fuzz targets' corpus, through the same checks, without a fuzzer.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

#[allow(missing_docs, unreachable_pub, reason = "it is the library of a package of its own")]
#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(folder).expect("the folder is there");
    let mut paths: Vec<PathBuf> = found.map(|entry| entry.expect("is readable").path()).collect();
    paths.sort();
    paths
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

#[test]
fn every_input_of_the_corpus_keeps_its_invariant() {
    let mut failed = Vec::new();
    for (name, check) in fuzz::TARGETS {
        let inputs = entries(&folder("corpus").join(name));
        assert!(inputs.len() >= 10, "only {} inputs for {name}", inputs.len());
        for path in inputs {
            let input = std::fs::read(&path).expect("an input is a file");
            if catch_unwind(|| check(&input)).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn each_target_has_a_corpus_and_a_program() {
    let names = |paths: Vec<PathBuf>| -> BTreeSet<String> {
        let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
        paths.into_iter().map(stem).collect()
    };
    let targets: BTreeSet<String> = fuzz::TARGETS.map(|(name, _)| name.to_owned()).into();
    assert_eq!(names(entries(&folder("corpus"))), targets);
    assert_eq!(names(entries(&folder("fuzz_targets"))), targets);
}
