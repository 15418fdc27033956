//! The plan of the house, held by a test: which room may import which, where SQL may stand, which migrations are twins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The floors, from the ground up. A room imports lower floors only; a room that is not here is not on the plan.
const FLOORS: &[(u8, &[&str])] = &[
    (0, &["id", "clock", "payload", "retry"]),
    (1, &["run", "signal", "thread", "message", "failure", "transaction"]),
    (2, &["journal"]),
    (3, &["workflow", "store"]),
    (4, &["engine", "intake", "agent"]),
    (5, &["runtime", "config"]),
    (6, &["http", "client", "testing", "bench"]),
    (7, &["cli"]),
];

/// What a room may import beside lower floors.
const ALSO: &[(&str, &str)] = &[
    // The author's desk is told by arithmetic alone how to try again; the nouns share it.
    ("run", "failure"),
    // The bench measures the demonstration too.
    ("bench", "workflows"),
    // Agents are answered for by a workflow that stands on the public face.
    ("runtime", "workflows"),
];

/// The files in which a statement is put together rather than written down, and why that is safe: none.
const ASSERTED: &[&str] = &[];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a directory, with its path from there.
fn sources(below: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    gather(below, &mut files);
    files.sort();
    let texts = files.into_iter().map(|file| {
        let name = file.strip_prefix(below).expect("a file below its directory").to_string_lossy().replace('\\', "/");
        (name, std::fs::read_to_string(&file).expect("a source file is text"))
    });
    texts.collect()
}

fn gather(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory of the house") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            gather(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The rooms that a text names after `crate::`, in its code.
fn rooms_named(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect();
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            // Only the first word of each part is a room: `{a::b, c}`.
            let mut depth = 1;
            let mut part = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 || (depth == 1 && c == ',') {
                    named.extend(first_word(part.trim()));
                    part.clear();
                } else {
                    part.push(c);
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            named.extend(first_word(rest));
        }
    }
    named
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    word.chars().next().filter(char::is_ascii_lowercase).map(|_| word)
}

fn room(file: &str) -> String {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs").to_owned()
}

#[test]
fn a_room_imports_lower_floors_only() {
    let floors: BTreeMap<&str, u8> =
        FLOORS.iter().flat_map(|(floor, rooms)| rooms.iter().map(move |room| (*room, *floor))).collect();
    let mut wrong = Vec::new();
    for (file, text) in sources(&root().join("src")) {
        let here = room(&file);
        if ["lib", "main"].contains(&here.as_str()) {
            continue;
        }
        let Some(floor) = floors.get(here.as_str()) else {
            wrong.push(format!("{file}: the room {here} is not on the plan"));
            continue;
        };
        for there in rooms_named(&text) {
            let allowed = there == here
                || floors.get(there.as_str()).is_some_and(|other| other < floor)
                || ALSO.contains(&(here.as_str(), there.as_str()));
            if !allowed {
                wrong.push(format!("{file}: {here} may not import {there}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_workflows_stand_on_the_public_face() {
    for (file, text) in sources(&root().join("workflows")) {
        assert_eq!(rooms_named(&text), BTreeSet::new(), "workflows/{file} names a room of the crate");
    }
}

#[test]
fn sql_stands_in_the_store_only() {
    let mut wrong = Vec::new();
    for (file, text) in sources(&root().join("src")) {
        let speaks =
            ["sqlx::query", "query_as(", "query_scalar(", "sqlx::raw_sql"].iter().any(|word| text.contains(word));
        if speaks && room(&file) != "store" {
            wrong.push(file);
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn statements_are_written_down_and_not_put_together() {
    let files = sources(&root().join("src")).into_iter().filter(|(_, text)| text.contains("AssertSqlSafe("));
    let files: Vec<String> = files.map(|(file, _)| file).collect();
    assert_eq!(files, ASSERTED);
}

#[test]
fn time_is_an_argument_of_every_statement() {
    let mut wrong = Vec::new();
    for (file, text) in sources(&root().join("src/store")) {
        for word in ["now()", "current_timestamp", "strftime(", "datetime('now"] {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            // The clock's offset is what one statement is for.
            if code.into_iter().any(|line| line.contains(&format!(" {word}")) && !line.contains("clock")) {
                wrong.push(format!("{file}: {word}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn migrations_are_twins() {
    let names = |database: &str| -> Vec<String> {
        let files = std::fs::read_dir(root().join("migrations").join(database)).expect("its migrations");
        let mut names: Vec<String> =
            files.map(|file| file.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let (sqlite, postgres) = (names("sqlite"), names("postgres"));
    assert_eq!(sqlite, postgres);
    for (number, name) in sqlite.iter().enumerate() {
        assert_eq!(name.split('_').next(), Some(format!("{:04}", number + 1).as_str()), "{name}");
    }
}

#[test]
fn the_map_in_the_library_names_every_room() {
    let map = std::fs::read_to_string(root().join("src/lib.rs")).expect("the library");
    let missing = FLOORS.iter().flat_map(|(_, rooms)| rooms.iter()).filter(|room| !map.contains(&format!("`{room}`")));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&&str>::new());
}
