//! `aldis.toml`: what it says is done, what is wrong with it is told with its place, and no secret is told at all.

use std::path::Path;

use aldis::agent::model::Models;
use aldis::config::{Base, Config, Environment, People, Problems, table};
use serde_json::Value;

use crate::support::Place;

const WHOLE: &str = r#"
store = "sqlite://other.db"

[serve]
listen = "127.0.0.1:0"
heartbeat = "5s"

[work]
poll = "250ms"

[retention]
chunks_kept = 500

[limits]
contents_bytes_max = 1000

[models]
fast = "local/small"

[providers.local]
base_url = "http://127.0.0.1:9/v1"
api_key = { env = "LOCAL_KEY" }
pace = { concurrent = 2 }

[mcp.files]
command = "mcp-files"
args = ["/srv"]
env = { MODE = "read", FILES_TOKEN = { file = "token" } }
only = ["read"]
approval_of = { read = false }

[agents.support]
instructions_file = "support.md"
model = "fast"
answering = { temperature = 0.2, reasoning = "low" }
steps_max = 7
budget = { tokens_max = 9000, time_max = "10m" }
mcp = ["files"]
delegates = { echo = "Repeats what it is told." }
workflows = { refund = "Pays an order back." }
tasks = true
instruction_files = { under = "." }

[agents.echo]
output = { schema_file = "form.json" }
"#;

const VARIABLES: [(&str, &str); 1] = [("LOCAL_KEY", "sk-very-secret-1")];

/// A folder with a file of settings and what it names.
fn folder(settings: &str) -> Place {
    let place = Place::sqlite();
    for (name, text) in
        [("aldis.toml", settings), ("support.md", "Be kind."), ("token", "tk-very-secret-2\n"), ("form.json", "{}")]
    {
        std::fs::write(place.folder.path().join(name), text).unwrap();
    }
    place
}

fn read(place: &Place, variables: &[(&str, &str)]) -> Result<(Config, People), Problems> {
    let environment = Environment::of(variables.iter().copied());
    let config = Config::read(&place.folder.path().join("aldis.toml"), &environment)?;
    let base = Base { workflows: aldis::workflows::all().into_iter().map(Into::into).collect(), ..Base::default() };
    let people = config.people(&base, &environment, None)?;
    Ok((config, people))
}

/// What is wrong, without the folder's name.
fn wrong(settings: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let place = folder(settings);
    let problems = read(&place, variables).map(drop).unwrap_err().0;
    let folder = format!("{}/", place.folder.path().display());
    problems.iter().map(|problem| problem.to_string().replace(&folder, "")).collect()
}

#[test]
fn a_whole_file_is_understood() {
    let place = folder(WHOLE);
    let (config, people) = read(&place, &VARIABLES).unwrap();
    let settings = &config.settings;
    assert_eq!(settings.store, "sqlite://other.db");
    assert_eq!((settings.serve.heartbeat.to_string(), settings.serve.prefix.as_str()), ("5s".to_owned(), "/api"));
    assert_eq!((settings.retention.chunks_kept, settings.limits.contents_bytes_max), (500, 1000));
    let names: Vec<&str> = people.agents.iter().map(|agent| agent.name()).collect();
    assert_eq!(names, ["echo", "support"]);
    let support = people.agents[1].describe();
    assert_eq!((support.instructions.as_str(), support.model.as_str()), ("Be kind.", "fast"));
    let tools: Vec<&str> = support.tools.iter().map(|tool| tool.spec.name.as_str()).collect();
    assert!(tools.contains(&"ask_echo") && tools.contains(&"refund") && tools.contains(&"task_write"), "{tools:?}");
    assert_eq!(people.models.resolve("fast").unwrap().id, "small");
}

#[test]
fn a_key_that_is_not_known_is_told_with_its_place_and_its_neighbour() {
    let told = wrong("stroe = \"a\"\n\n[serve]\n  listne = \"b\"\n[agents.a]\nlease = \"1s\"\n[provider.x]\n", &[]);
    insta::assert_snapshot!(told.join("\n"), @r#"
    aldis.toml:1:1: there is no key "stroe" at the top; did you mean "store"?
    aldis.toml:4:3: there is no key "listne" in [serve]; did you mean "listen"?
    aldis.toml:6:1: there is no key "lease" in [agents.a]; it stands in [work]
    aldis.toml:7:2: there is no key "provider" at the top; did you mean "providers"?
    "#);
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let settings = r#"
[serve]
listen = "nowhere"
prefix = "api"
timeout = "soon"
body_bytes_max = -1
[models]
fast = "opnai/x"
[providers.openai]
[agents.a]
model = "offlin"
mcp = ["crm"]
delegates = { b = "Another." }
workflows = { refnud = "Pays back." }
instructions_file = "none.md"
instruction_files = { under = "nowhere" }
"#;
    let told = wrong(settings, &[]);
    // Forms first: what the values mean is looked at once they have their form.
    insta::assert_snapshot!(told.join("\n"), @r#"
    aldis.toml:3:1: serve.listen: write an address and a port, such as 127.0.0.1:4111
    aldis.toml:4:1: serve.prefix: a prefix is a path such as /api, of letters, digits and / - _ .
    aldis.toml:5:1: serve.timeout: "soon" is no span of time; write one such as 90s, 2h or 1h30m
    aldis.toml:6:1: serve.body_bytes_max: invalid value: integer `-1`, expected a whole number that is not negative
    "#);
    let forms = ["listen", "prefix", "timeout", "body_bytes_max"];
    let meaning = settings.lines().filter(|line| !forms.iter().any(|form| line.starts_with(form)));
    let meaning: Vec<&str> = meaning.collect();
    let meaning = meaning.join("\n");
    insta::assert_snapshot!(wrong(&meaning, &[]).join("\n"), @r#"
    aldis.toml:4:1: models.fast: no model named "opnai/x"; known: fast, offline
    aldis.toml:5:12: providers.openai: model openai/… cannot be asked this: it needs an api_key
    aldis.toml:7:1: agents.a.model: no model named "offlin", did you mean "offline"?; known: fast, offline
    aldis.toml:8:8: agents.a.mcp.0: there is no MCP server "crm" in [mcp]; there is none at all
    aldis.toml:9:15: agents.a.delegates.b: there is no agent "b" here; there are: a
    aldis.toml:10:15: agents.a.workflows.refnud: there is no workflow "refnud" in this program; did you mean "refund"?
    aldis.toml:11:1: agents.a.instructions_file: none.md cannot be read: No such file or directory (os error 2)
    aldis.toml:12:23: agents.a.instruction_files.under: nowhere is no folder; say which one the files are below
    "#);
}

#[test]
fn a_file_that_is_no_toml_is_told_without_its_text() {
    let told = wrong("[providers.openai]\napi_key = sk-very-secret\n", &[]);
    assert!(told[0].starts_with("aldis.toml:2:11: ") && !told.join("").contains("sk-very"), "{told:?}");
}

#[test]
fn a_file_that_is_cut_anywhere_is_understood_or_told() {
    let text = WHOLE.replace("{ env = \"LOCAL_KEY\" }", "\"sk-very-secret\"");
    for (end, _) in text.char_indices() {
        let read = Config::of(Path::new("cut.toml"), &text[..end], &Environment::of([]));
        if let Err(problems) = read {
            assert!(!problems.to_string().contains("sk-very"), "{problems}");
            assert!(problems.0.iter().all(|it| it.to_string().starts_with("cut.toml:")), "{problems}");
        }
    }
}

#[test]
fn a_secret_is_named_and_never_told() {
    let told = wrong("[providers.openai]\napi_key = \"sk-very-secret\"\n", &[]);
    insta::assert_snapshot!(told.join("\n"), @r#"aldis.toml:2:1: providers.openai.api_key: a secret is not written here; write where the secret is: { env = "NAME" } or { file = "PATH" }"#);
    let told =
        wrong("[mcp.crm]\nurl = \"https://crm.example\"\nheaders = { authorization = \"Bearer sk-very\" }\n", &[]);
    insta::assert_snapshot!(told.join("\n"), @r#"aldis.toml:3:13: mcp.crm.headers.authorization: this looks like a secret; write where it is: { env = "NAME" } or { file = "PATH" }"#);
    let told = wrong(WHOLE, &[]);
    insta::assert_snapshot!(told.join("\n"), @r#"aldis.toml:22:1: providers.local.api_key: the variable LOCAL_KEY is not set; set it, or remove this"#);
}

#[test]
fn a_variable_goes_before_the_file_and_a_flag_before_both() {
    let place = folder("store = \"sqlite://of-file.db\"\n[serve]\nlisten = \"127.0.0.1:0\"\nprefix = \"/file\"\n");
    let variables = [("ALDIS_STORE", "sqlite://of-variable.db"), ("ALDIS_PREFIX", "/variable")];
    let (config, _) = read(&place, &variables).unwrap();
    assert_eq!(config.settings.store, "sqlite://of-variable.db");
    assert_eq!(config.settings.serve.prefix, "/variable");
    // The port is the file's, the prefix the variable's, the store the flag's.
    let store = format!("sqlite://{}", place.folder.path().join("of-flag.db").display());
    let served = place.begin_under(&variables, &["serve", "--json", "--store", &store]);
    let first: Value = serde_json::from_str(&served.first).unwrap();
    assert!(first["base"].as_str().unwrap().ends_with("/variable"), "{first}");
    assert_ne!(first["address"], "127.0.0.1:4111");
    assert!(first["store"].as_str().unwrap().contains("of-flag.db"), "{first}");
    assert_eq!(served.stop(), 0);
}

#[test]
fn a_variable_that_does_not_fit_is_named() {
    let told = wrong("", &[("ALDIS_PENDING_MAX", "many"), ("ALDIS_POLL", "now")]);
    insta::assert_snapshot!(told.join("\n"), @r#"
    variable ALDIS_PENDING_MAX: "many" is no whole number
    variable ALDIS_POLL: work.poll: "now" is no span of time; write one such as 90s, 2h or 1h30m
    "#);
}

#[test]
fn check_says_what_is_set_and_tells_no_secret() {
    let place = folder(&WHOLE.replace("sqlite://other.db", "postgres://ann:s3cret@db.example/aldis"));
    let checked = place.aldis_under(&VARIABLES, &["config", "check"]);
    let told = format!("{}{}", checked.out, checked.err);
    assert_eq!(checked.code, 0, "{told}");
    assert!(told.contains("providers.local.api_key = set  (aldis.toml:22:1)"), "{told}");
    assert!(
        told.contains("mcp.files.env.FILES_TOKEN = set") && told.contains("agents.support.steps_max = 7"),
        "{told}"
    );
    // The test's own store, by its variable, goes before the file's.
    assert!(told.contains("(variable ALDIS_STORE)") && told.ends_with("aldis.toml: nothing is wrong\n"), "{told}");
    for secret in ["very-secret", "s3cret"] {
        assert!(!told.contains(secret), "{told}");
    }
}

#[test]
fn check_fails_if_something_is_wrong_and_so_does_every_command() {
    let place = folder("[serve]\nlisten = 7\nprefixes = \"/x\"\n");
    let checked = place.aldis(&["config", "check", "--json"]);
    let problems = checked.json();
    assert_eq!((checked.code, problems.len()), (1, 2), "{checked:?}");
    assert_eq!((&problems[0]["file"], &problems[0]["line"]), (&"aldis.toml".into(), &2.into()), "{problems:?}");
    let refused = place.aldis(&["runs", "--json"]);
    let told: Value = serde_json::from_str(&refused.err).unwrap();
    assert_eq!((refused.code, told["code"].as_str()), (2, Some("config_invalid")), "{refused:?}");
    let other = place.aldis(&["config", "check", "--config", "none.toml"]);
    assert!(other.code == 1 && other.out.contains("none.toml:1:1: it cannot be read"), "{other:?}");
}

// Who operates a server need not have the secrets of its providers.
#[test]
fn what_asks_no_model_needs_no_secret() {
    let place = folder(WHOLE);
    let done = place.aldis_under(&VARIABLES, &["migrate"]);
    assert_eq!(done.code, 0, "{done:?}");
    let listed = place.aldis(&["runs"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    let queued = place.aldis(&["send", "t", "Hello", "--agent", "echo", "--detach"]);
    assert_eq!(queued.code, 0, "{queued:?}");
    let refused = place.aldis(&["work"]);
    assert!(refused.code == 2 && refused.err.contains("the variable LOCAL_KEY is not set"), "{refused:?}");
}

#[test]
fn an_agent_of_the_file_answers() {
    let place = folder("[agents.parrot]\ninstructions = \"Repeat.\"\n");
    let sent = place.aldis(&["send", "t", "Hello", "--agent", "parrot"]);
    assert_eq!((sent.code, sent.out.as_str()), (0, "Hello\n"), "{sent:?}");
    // The demonstration is there only as long as nobody declares an agent.
    let refused = place.aldis(&["send", "t", "Hello", "--agent", "demo"]);
    assert!(refused.code == 2 && refused.err.contains("here are: parrot"), "{refused:?}");
}

#[test]
fn servers_and_providers_that_are_the_same_are_kept_with_their_connections() {
    let place = folder(WHOLE);
    let environment = Environment::of(VARIABLES);
    let (config, before) = read(&place, &VARIABLES).unwrap();
    let base = Base { workflows: aldis::workflows::all().into_iter().map(Into::into).collect(), ..Base::default() };
    let model = |models: &Models| models.resolve("local/x").unwrap().model;
    let same = config.people(&base, &environment, Some(&before)).unwrap();
    assert!(std::sync::Arc::ptr_eq(&model(&before.models), &model(&same.models)));
    let turned = Environment::of([("LOCAL_KEY", "sk-another")]);
    let other = config.people(&base, &turned, Some(&before)).unwrap();
    assert!(!std::sync::Arc::ptr_eq(&model(&before.models), &model(&other.models)), "another key, another provider");
}

/// The documentation's table is the code's.
#[test]
fn every_key_is_documented_as_it_is() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, rest) = text.split_once("<!-- keys -->\n").expect("the table's begin");
    let (documented, _) = rest.split_once("<!-- end of keys -->").expect("the table's end");
    assert_eq!(documented.trim(), table().trim(), "run `aldis config keys` and put what it prints there");
}
