//! The bodies of the fuzz targets, run over the corpus and over every cut and every flipped byte of it.

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::path::Path;

fn each_of(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in std::fs::read_dir(corpus).expect("the target's corpus") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        body(&bytes);
        // A long one is cut and bent in fewer places.
        let stride = 1 + bytes.len() / 500;
        for at in (0..bytes.len()).step_by(stride) {
            body(&bytes[..at]);
            for bent in [0, b'"', b'}', b'9', 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = bent;
                body(&bytes);
            }
        }
        inputs += 1;
    }
    assert!(inputs > 2, "{inputs} inputs for {target}");
}

#[test]
fn no_event_line_makes_the_decoder_panic() {
    each_of("event_line", bodies::event_line);
}

#[test]
fn no_export_makes_the_reader_panic() {
    each_of("export", bodies::export);
}

#[test]
fn no_row_of_a_thread_makes_the_reader_panic() {
    each_of("message_row", bodies::message_row);
}

#[test]
fn no_payload_makes_the_parser_panic() {
    each_of("payload", bodies::payload);
}

#[test]
fn no_text_makes_the_id_parser_panic() {
    each_of("run_id", bodies::run_id);
}
