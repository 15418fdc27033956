//! Tokens (JWT) as proof of who asks, attempts that fail, and that nothing which proves anything is written anywhere.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use aldis::http::{Jwt, JwtError, Keys, Options};
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::served::{Answer, Served};
use crate::support::secs;

const SECRET: &str = "an-exemplary-secret-of-forty-bytes-or-so";

fn hs256() -> Jwt {
    Jwt::with_secret(&SecretString::from(SECRET)).expect("a secret")
}

/// Who signs, as whom.
fn signed(algorithm: Algorithm, key: &EncodingKey, id: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: id.map(str::to_owned), ..Header::new(algorithm) };
    encode(&header, claims, key).expect("a token")
}

fn by_secret(claims: &Value) -> String {
    signed(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), None, claims)
}

/// Private keys for tests: they open nothing anywhere.
fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_pem(include_bytes!("keys/rsa.pem")).expect("a key")
}

fn ec() -> EncodingKey {
    EncodingKey::from_ec_pem(include_bytes!("keys/ec.pem")).expect("a key")
}

/// The public half, as key sets list it.
fn public(key: &EncodingKey, algorithm: Algorithm, id: &str) -> Value {
    let mut jwk = json!(Jwk::from_encoding_key(key, algorithm).expect("a public key"));
    jwk["kid"] = id.into();
    jwk
}

fn write(file: &Path, keys: &[Value]) {
    std::fs::write(file, json!({ "keys": keys }).to_string()).expect("a file");
}

/// What the clock says, in seconds, as tokens do.
fn seconds(served: &Served) -> i64 {
    served.kit.now().as_millis() / 1_000
}

/// Claims of Ann's, for the next minute.
fn hers(served: &Served) -> Value {
    json!({ "resource": "ann", "exp": seconds(served) + 60 })
}

async fn agents(served: &Served, proof: &str, from: Option<&str>) -> Answer {
    let mut request = Request::get("/api/agents").header("authorization", format!("Bearer {proof}"));
    if let Some(from) = from {
        let from: SocketAddr = from.parse().expect("an address");
        request = request.extension(ConnectInfo(from));
    }
    served.ask(request.body(Body::empty()).expect("a request")).await
}

async fn refused(served: &Served, token: &str) -> String {
    let (status, code, says) = agents(served, token, None).await.refused();
    assert_eq!((status, code.as_str()), (401, "unauthorized"));
    says
}

each_store! {
    // H1.8
    async fn a_token_opens_the_threads_of_the_resource_it_names_beside_keys(kind) {
        let served = Served::with(kind, Options { jwt: Some(hs256()), ..Options::default() }).await?;
        let key = served.kit.create_key("bob", Some("bob")).await?.secret;
        let ann = by_secret(&hers(&served));
        let ask = async |method: &str, path: &str, proof: &str, body: Value| {
            let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {proof}"));
            served.ask(request.body(Body::from(body.to_string())).unwrap()).await
        };
        let body = json!({ "message": "Hi", "threadId": "t", "resourceId": "bob" });
        let sent = ask("POST", "/api/agents/demo/send-message", &ann, body.clone()).await.ok();
        served.kit.settle().await?;
        let thread = ask("GET", "/api/memory/threads/t", &ann, json!({})).await.ok();
        assert_eq!(thread["resourceId"], "ann", "the token says for whom, not the body");
        assert_eq!(ask("GET", "/api/memory/threads/t", &key, json!({})).await.refused().0, 403);
        assert_eq!(ask("POST", "/api/agents/demo/send-message", &key, body).await.refused().0, 403);
        assert_eq!(ask("GET", "/metrics", &ann, json!({})).await.refused().0, 403, "what is nobody's is not for tokens");
        assert_eq!(ask("GET", &format!("/api/runs/{}", sent["runId"].as_str().unwrap()), &ann, json!({})).await.ok()["status"], "completed");
        assert_eq!(served.get("/api/agents").await.refused().0, 401);
        served.finish().await?;
    }

    async fn a_token_counts_from_its_beginning_to_its_end(kind) {
        let served = Served::with(kind, Options { jwt: Some(hs256().leeway(secs(5))), ..Options::default() }).await?;
        let begun = seconds(&served);
        let token = by_secret(&json!({ "resource": "ann", "nbf": begun + 20, "exp": begun as f64 + 60.5 }));
        assert_eq!(refused(&served, &token).await, "the token does not count yet");
        served.kit.advance(secs(15)).await?;
        agents(&served, &token, None).await.ok();
        served.kit.advance(secs(50)).await?;
        agents(&served, &token, None).await.ok();
        served.kit.advance(Duration::from_millis(600)).await?;
        assert_eq!(refused(&served, &token).await, "the token has expired");
        served.finish().await?;
    }

    async fn what_a_token_lacks_is_said(kind) {
        let jwt = hs256().audience("aldis").issuer("https://id.example");
        let served = Served::with(kind, Options { jwt: Some(jwt), ..Options::default() }).await?;
        let good = json!({
            "resource": "ann", "exp": seconds(&served) + 60, "aud": ["shop", "aldis"], "iss": "https://id.example",
        });
        agents(&served, &by_secret(&good), None).await.ok();
        let with = |claim: &str, value: Value| {
            let mut claims = good.clone();
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(claim)),
                value => claims[claim] = value,
            }
            by_secret(&claims)
        };
        let expected = r#"the token names no resource; expected a text in its claim "resource""#;
        for (claim, value, says) in [
            ("resource", Value::Null, expected),
            ("resource", json!(7), expected),
            ("resource", json!(""), expected),
            ("exp", Value::Null, "the token does not say when it expires (exp)"),
            ("exp", json!("soon"), "the token does not say when it expires (exp)"),
            ("exp", json!(0), "the token has expired"),
            ("nbf", json!("now"), "its times are no numbers"),
            ("aud", json!("shop"), "the token is for another audience"),
            ("aud", Value::Null, "the token does not say for whom it is (aud)"),
            ("iss", json!("https://elsewhere.example"), "the token is of another issuer"),
            ("iss", Value::Null, "the token does not say who has made it (iss)"),
        ] {
            assert_eq!(refused(&served, &with(claim, value.clone())).await, says, "{claim}: {value}");
        }
        served.finish().await?;
    }

    async fn nobody_else_can_make_a_token(kind) {
        let served = Served::with(kind, Options { jwt: Some(hs256()), ..Options::default() }).await?;
        let claims = hers(&served);
        let good = by_secret(&claims);
        let (message, signature) = good.rsplit_once('.').unwrap();
        let (head, said) = message.split_once('.').unwrap();
        // What Ann's token says, changed to Bob's.
        let bobs = by_secret(&json!({ "resource": "bob", "exp": claims["exp"] }));
        let bobs = bobs.split('.').nth(1).unwrap();
        let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
        let other = EncodingKey::from_secret(b"another-secret-of-forty-bytes-or-even-more");
        for forged in [
            format!("{head}.{bobs}.{signature}"),
            format!("{head}.{said}."),
            format!("{unsigned}.{said}."),
            format!("{unsigned}.{said}.{signature}"),
            signed(Algorithm::HS256, &other, None, &claims),
            signed(Algorithm::HS512, &EncodingKey::from_secret(SECRET.as_bytes()), None, &claims),
            signed(Algorithm::RS256, &rsa(), None, &claims),
            "a.b.c".to_owned(),
            format!("{good}{}", "x".repeat(9_000)),
        ] {
            assert_eq!(agents(&served, &forged, None).await.refused().0, 401, "{forged}");
        }
        let short = Jwt::with_secret(&SecretString::from("short")).unwrap_err();
        assert!(matches!(short, JwtError::WeakSecret { found: 5 }), "{short}");
        served.finish().await?;
    }

    async fn keys_of_a_file_count_as_long_as_they_are_in_it(kind) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        let (rsa, ec) = (rsa(), ec());
        let ours = [public(&rsa, Algorithm::RS256, "r"), public(&ec, Algorithm::ES256, "e")];
        write(&file, &ours);
        let served = Served::with(kind, Options { jwt: Some(Jwt::with_keys(&file).unwrap()), ..Options::default() }).await?;
        let claims = json!({ "resource": "ann", "exp": seconds(&served) + 3_600 });
        let by_rsa = |id| signed(Algorithm::RS256, &rsa, id, &claims);
        let by_ec = signed(Algorithm::ES256, &ec, Some("e"), &claims);
        for token in [by_rsa(Some("r")), by_rsa(None), by_ec.clone()] {
            agents(&served, &token, None).await.ok();
        }
        // A public key is no secret: who signs with it as if it were, has signed nothing.
        let public = EncodingKey::from_secret(ours[0]["n"].as_str().unwrap().as_bytes());
        for token in [by_rsa(Some("other")), signed(Algorithm::HS256, &public, Some("r"), &claims)] {
            assert_eq!(refused(&served, &token).await, "the token is not signed by a key that counts here");
        }
        // One that is taken out counts no longer; nothing is started again for that.
        write(&file, &ours[1..]);
        served.kit.advance(secs(1)).await?;
        assert_eq!(agents(&served, &by_rsa(Some("r")), None).await.refused().0, 401);
        agents(&served, &by_ec, None).await.ok();
        // What cannot be read changes nothing.
        for broken in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#] {
            std::fs::write(&file, broken).unwrap();
            served.kit.advance(secs(1)).await?;
            agents(&served, &by_ec, None).await.ok();
            let error = Jwt::with_keys(&file).unwrap_err();
            assert!(matches!(error, JwtError::NoKeySet { .. }), "{error}");
        }
        std::fs::remove_file(&file).unwrap();
        served.kit.advance(secs(1)).await?;
        agents(&served, &by_ec, None).await.ok();
        assert!(matches!(Jwt::with_keys(&file).unwrap_err(), JwtError::Unreadable { .. }));
        write(&file, &ours);
        served.kit.advance(secs(1)).await?;
        agents(&served, &by_rsa(Some("r")), None).await.ok();
        served.finish().await?;
    }

    // H2: 429 says when to come back.
    async fn many_failed_attempts_from_one_address_are_enough(kind) {
        let options = Options { keys: Keys::Required, jwt: Some(hs256()), failures_max: 3, ..Options::default() };
        let served = Served::with(kind, options).await?;
        let key = served.kit.create_key("phone", None).await?.secret;
        let (here, there) = (Some("192.0.2.1:1000"), Some("192.0.2.2:1000"));
        let expired = by_secret(&json!({ "resource": "ann", "exp": 0 }));
        for _ in 0..5 {
            // Neither is an attempt to guess.
            assert_eq!(agents(&served, &expired, here).await.status, 401);
            assert_eq!(served.get("/api/agents").await.status, 401);
        }
        for guess in ["aldis_0", "Ann", "a.b.c"] {
            agents(&served, &key, here).await.ok();
            assert_eq!(agents(&served, guess, here).await.status, 401);
        }
        served.kit.advance(secs(20)).await?;
        let enough = agents(&served, &key, here).await;
        assert_eq!((enough.refused().0, enough.refused().1.as_str()), (429, "too_many_failures"));
        assert_eq!((&enough.headers["retry-after"], &enough.json()["retryAfterMs"]), (&"40".parse().unwrap(), &json!(40_000)));
        agents(&served, &key, there).await.ok();
        served.kit.advance(secs(40)).await?;
        agents(&served, &key, here).await.ok();
        served.finish().await?;
    }

    async fn behind_a_proxy_the_address_is_the_one_it_tells(kind) {
        let proxies = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let options = Options { keys: Keys::Required, failures_max: 1, proxies, ..Options::default() };
        let served = Served::with(kind, options).await?;
        let ask = async |peer: &str, told: &str| {
            let peer: SocketAddr = format!("{peer}:99").parse().unwrap();
            let request = Request::get("/api/agents").header("x-api-key", "guess").header("x-forwarded-for", told);
            served.ask(request.extension(ConnectInfo(peer)).body(Body::empty()).unwrap()).await.status.as_u16()
        };
        assert_eq!(ask("10.0.0.1", "192.0.2.1").await, 401);
        assert_eq!(ask("10.0.0.1", "192.0.2.1").await, 429);
        // What a client tells the proxy of itself stands before what the proxy tells.
        assert_eq!(ask("10.0.0.2", "192.0.2.77, 192.0.2.1, 10.0.0.1").await, 429);
        assert_eq!(ask("10.0.0.1", "192.0.2.1, 192.0.2.2").await, 401);
        // Nobody else is believed.
        assert_eq!(ask("192.0.2.1", "192.0.2.3").await, 429);
        assert_eq!(ask("192.0.2.4", "192.0.2.5").await, 401);
        assert_eq!(ask("192.0.2.4", "192.0.2.6").await, 429);
        served.finish().await?;
    }

    async fn the_first_key_counts_at_once(kind) {
        let served = Served::start(kind).await?;
        served.get("/api/agents").await.ok();
        let key = served.kit.create_key("phone", None).await?;
        assert_eq!(served.get("/api/agents").await.refused().0, 401);
        agents(&served, &key.secret, None).await.ok();
        // Ending the last key does not open the server to everybody.
        served.kit.revoke_key(&key.key.id).await?;
        assert_eq!(served.get("/api/agents").await.refused().0, 401);
        served.finish().await?;
        let ignored = Served::with(kind, Options { keys: Keys::Ignored, ..Options::default() }).await?;
        ignored.kit.create_key("phone", None).await?;
        ignored.get("/api/agents").await.ok();
        ignored.finish().await?;
    }

    async fn nothing_that_proves_anything_is_written_anywhere(kind) {
        let log = captured();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        let ec = ec();
        write(&file, &[public(&ec, Algorithm::ES256, "e")]);
        let mut secrets = vec![SECRET.to_owned()];
        let mut answers = String::new();
        for jwt in [hs256(), Jwt::with_keys(&file).unwrap()] {
            assert!(!format!("{jwt:?}").contains(SECRET));
            let served = Served::with(kind, Options { jwt: Some(jwt), ..Options::default() }).await?;
            let key = served.kit.create_key("phone", Some("ann")).await?;
            answers.push_str(&format!("{key:?}"));
            let good = by_secret(&hers(&served));
            let other = signed(Algorithm::ES256, &ec, Some("e"), &hers(&served));
            let late = by_secret(&json!({ "resource": "ann", "exp": 1 }));
            let guess = format!("aldis_guess{}", "0".repeat(30));
            for proof in [key.secret.clone(), good, other, late, guess, "what-a-strange-token".into(), "x.what-a-strange-token.y".into()] {
                let answer = agents(&served, &proof, None).await;
                answers.push_str(&format!("{answer:?}"));
                secrets.push(proof);
            }
            std::fs::write(&file, "broken").unwrap();
            served.kit.advance(secs(2)).await?;
            served.kit.revoke_key(&key.key.id).await?;
            agents(&served, &key.secret, None).await.refused();
            served.finish().await?;
        }
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(log.contains("answered"), "the log is captured");
        for secret in secrets {
            assert!(!log.contains(&secret), "{secret} is in the log");
            assert!(!answers.contains(&secret), "{secret} is in an answer");
        }
    }
}

/// All that this process logs, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn captured() -> Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    let log = LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        let all = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
        all.with_ansi(false).with_writer(move || writer.clone()).init();
        log
    });
    log.clone()
}
