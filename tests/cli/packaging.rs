//! What `packaging/` names is there, and what systemd is told is so.

use std::collections::BTreeSet;
use std::path::Path;

use aldis::config::keys;

use crate::support::Place;

fn packaged(file: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(file);
    let text = std::fs::read_to_string(&file).unwrap();
    // What is explained is held against the program too; where it stands in a line does not matter.
    text.replace(['"', ',', '[', ']', '`', '#'], " ")
}

/// The words after `aldis` of each command that a text gives.
fn commands(text: &str) -> Vec<Vec<&str>> {
    let program = |word: &&str| word.ends_with("/aldis") || *word == "aldis";
    let of_line = |line| {
        let words: Vec<&str> = str::split_whitespace(line).collect();
        let at = words.iter().rposition(program)?;
        Some(words[at + 1..].to_vec()).filter(|words| !words.is_empty())
    };
    text.lines().filter(|line| line.contains("ExecStart") || line.contains("podman run")).filter_map(of_line).collect()
}

#[test]
fn commands_and_flags_that_are_packaged_are_there() {
    let place = Place::sqlite();
    let (unit, container) = (packaged("aldis.service"), packaged("Containerfile"));
    let mut all = commands(&unit);
    all.extend(commands(&container));
    let serve = container.lines().find(|line| line.starts_with("CMD")).expect("a command");
    all.push(serve.split_whitespace().skip(1).collect());
    assert!(all.len() >= 4, "{all:?}");
    for words in all {
        let subcommands: Vec<&str> = words
            .iter()
            .take_while(|word| !word.starts_with("--"))
            .take(2)
            .copied()
            .filter(|it| *it != "phone")
            .collect();
        let help = place.aldis(&[&subcommands[..], &["--help"]].concat());
        assert_eq!(help.code, 0, "{subcommands:?}: {help:?}");
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            assert!(
                help.out.contains(&format!("{flag} ")) || help.out.contains(&format!("{flag}\n")),
                "{flag}: {}",
                help.out
            );
        }
    }
}

#[test]
fn variables_that_are_packaged_are_read() {
    let mut known: BTreeSet<&str> = keys().iter().filter_map(|key| key.variable.as_deref()).collect();
    known.extend(["ALDIS_LOG", "ALDIS_CONFIG"]);
    for file in ["aldis.service", "Containerfile"] {
        let text = packaged(file);
        let named = text.split(|c: char| !c.is_ascii_uppercase() && c != '_').filter(|word| word.starts_with("ALDIS_"));
        let named: Vec<&str> = named.collect();
        assert!(named.len() >= 2, "{file}: {named:?}");
        for name in named {
            assert!(known.contains(name), "{file} names {name}, which nothing reads");
        }
    }
}

// The unit says `Type=notify-reload`.
#[cfg(unix)]
#[test]
fn systemd_is_told_when_it_is_ready_reloads_and_stops() {
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    assert!(packaged("aldis.service").contains("Type=notify-reload"));
    let place = Place::sqlite();
    let address = place.folder.path().join("notify");
    let socket = UnixDatagram::bind(&address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let heard = || {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    };
    let address = address.display().to_string();
    let server = place.begin_under(&[("NOTIFY_SOCKET", &address)], &["serve", "--listen", "127.0.0.1:0", "--json"]);
    assert_eq!(heard(), "READY=1");
    server.hang_up();
    let reloading = heard();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(heard(), "READY=1");
    assert_eq!(server.stop(), 0);
    assert_eq!(heard(), "STOPPING=1");
}
