//! Connections: what a client may do to them, and what that does to the server.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use aldis::agent::Agent;
use aldis::http::{Options, Server};
use aldis::store::{Kind, Page};
use aldis::testing::TestKit;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::{kit, secs};

const SEND: &str = "/api/agents/demo/send-message";

/// A server behind a socket.
struct Listening {
    kit: TestKit,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Listening {
    async fn with(options: Options) -> Self {
        let kit = kit(Kind::Sqlite).agent(aldis::workflows::demo::agent()).agent(Agent::new("other"));
        let kit = kit.start().await.expect("a kit");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopping) = oneshot::channel::<()>();
        let server = Server::new((*kit).clone(), options);
        let serving = tokio::spawn(server.serve(listener, async { drop(stopping.await) }, secs(30)));
        Self { kit, address, stop: Some(stop), serving }
    }

    async fn connect(&self) -> Client {
        Client { socket: TcpStream::connect(self.address).await.expect("a connection"), read: Vec::new() }
    }

    /// A whole request on a connection of its own.
    async fn ask(&self, request: &str) -> (u16, Value) {
        self.connect().await.ask(request).await
    }

    /// Asks the server to end.
    fn stop(&mut self) {
        drop(self.stop.take());
    }

    async fn finish(mut self) {
        self.stop();
        in_time(self.serving).await.expect("it ends");
        self.kit.finish().await.expect("nothing is left");
    }
}

/// What would otherwise hang, fails.
async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(secs(30), what).await.expect("it happens in time")
}

/// A client that writes and reads what it likes.
struct Client {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Client {
    async fn write(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.expect("the server reads");
    }

    /// What has come before this text, which is taken too.
    async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|part| part == end.as_bytes()) {
                let rest = self.read.split_off(at + end.len());
                let text = std::mem::replace(&mut self.read, rest);
                return String::from_utf8(text).expect("UTF-8");
            }
            let read = in_time(self.socket.read_buf(&mut self.read)).await.expect("the server writes");
            assert!(read > 0, "it has ended after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// All that still comes before the connection ends, by whichever side.
    async fn rest(&mut self) -> String {
        let mut rest = std::mem::take(&mut self.read);
        // A reset is an end too.
        let _ = in_time(self.socket.read_to_end(&mut rest)).await;
        String::from_utf8(rest).expect("UTF-8")
    }

    /// The status and the body of the next answer, which has a length.
    async fn answer(&mut self) -> (u16, Value) {
        let head = self.until("\r\n\r\n").await.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).expect("a length");
        let length: usize = length.trim().parse().expect("a number");
        while self.read.len() < length {
            assert!(in_time(self.socket.read_buf(&mut self.read)).await.expect("a body") > 0, "the body is cut off");
        }
        let rest = self.read.split_off(length);
        let body = std::mem::replace(&mut self.read, rest);
        (status(&head), serde_json::from_slice(&body).expect("JSON"))
    }

    async fn ask(&mut self, request: &str) -> (u16, Value) {
        self.write(request).await;
        self.answer().await
    }
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {head}"))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: here\r\n\r\n")
}

fn post(path: &str, body: &Value) -> String {
    let body = body.to_string();
    format!("POST {path} HTTP/1.1\r\nhost: here\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn message() -> Value {
    json!({ "message": "Hello", "resourceId": "ann", "threadId": "t" })
}

fn subscribe() -> String {
    post("/api/agents/demo/threads/subscribe", &json!({ "threadId": "t", "resourceId": "ann" }))
}

const SOON: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request_and_not_for_ever() {
    let served = Listening::with(Options { idle_timeout: SOON, ..Options::default() }).await;
    let mut client = served.connect().await;
    for _ in 0..3 {
        assert_eq!(client.ask(&get("/health")).await.0, 200);
    }
    // Two requests at once are answered one after the other.
    client.write(&(get("/health") + &get("/api/agents/nobody"))).await;
    assert_eq!((client.answer().await.0, client.answer().await.0), (200, 404));
    assert_eq!(client.rest().await, "");
    served.finish().await;
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let served = Listening::with(Options { head_timeout: SOON, ..Options::default() }).await;
    let (mut silent, mut slow) = (served.connect().await, served.connect().await);
    slow.write("GET /health HTTP/1.1\r\nhost:").await;
    assert_eq!(served.ask(&get("/health")).await.0, 200);
    assert_eq!((silent.rest().await, slow.rest().await), (String::new(), String::new()));
    served.finish().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_and_nothing_is_written() {
    let served = Listening::with(Options { timeout: SOON, ..Options::default() }).await;
    for route in [SEND, "/api/agents/demo/generate"] {
        let mut client = served.connect().await;
        let whole = post(route, &message());
        client.write(&whole[..whole.len() - 1]).await;
        let (status, problem) = client.answer().await;
        assert_eq!((status, &problem["code"]), (408, &json!("request_timeout")));
        assert_eq!(client.rest().await, "", "the rest of the body is not waited for");
    }
    assert!(served.kit.threads(None, Page::first(1)).await.unwrap().items.is_empty());
    served.finish().await;
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let served = Listening::with(Options::default()).await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000));
    let crowd = format!("GET /health HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1_000));
    for (wrong, expected) in [
        ("nonsense\r\n\r\n", 400),
        ("GET /health HTTP/9.9\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}", 400),
        (long.as_str(), 414),
        (crowd.as_str(), 431),
    ] {
        let mut client = served.connect().await;
        // It may be refused before it is read to its end.
        let _ = client.socket.write_all(wrong.as_bytes()).await;
        let said = wrong.chars().take(60).collect::<String>();
        println!("{said:?}");
        let answer = client.rest().await;
        assert_eq!(status(&answer), expected, "{said:?}: {answer}");
    }
    // A head without an end is not kept.
    let mut client = served.connect().await;
    client.write("GET /health HTTP/1.1\r\nx: ").await;
    let endless = async { while client.socket.write_all(&[b'y'; 64 * 1024]).await.is_ok() {} };
    in_time(endless).await;
    // A body in pieces that are none is refused by the route; nothing of it counts.
    let pieces = format!("POST {SEND} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n");
    let (status, problem) = served.ask(&pieces).await;
    assert_eq!((status, &problem["code"]), (400, &json!("request_invalid")));
    assert_eq!(served.ask(&get("/health")).await.0, 200);
    assert!(served.kit.threads(None, Page::first(1)).await.unwrap().items.is_empty());
    served.finish().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_has_asked_nothing_and_holds_nothing() {
    let served = Listening::with(Options::default()).await;
    let whole = post(SEND, &message());
    for cut in [10, whole.len() / 2, whole.len() - 1] {
        let mut client = served.connect().await;
        client.write(&whole[..cut]).await;
    }
    let mut reader = served.connect().await;
    reader.write(&subscribe()).await;
    reader.until(": connected").await;
    let mut counts = served.connect().await;
    assert!(metrics(&mut counts).await.contains("aldis_http_streams 1"));
    drop(reader);
    in_time(async {
        loop {
            let text = metrics(&mut counts).await;
            // This one is what is left.
            if text.contains("aldis_http_streams 0") && text.contains("aldis_http_connections 1") {
                return;
            }
        }
    })
    .await;
    assert!(served.kit.threads(None, Page::first(1)).await.unwrap().items.is_empty());
    served.finish().await;
}

async fn metrics(client: &mut Client) -> String {
    client.write("GET /metrics HTTP/1.1\r\nhost: here\r\naccept-encoding: identity\r\n\r\n").await;
    client.until("# EOF\n").await
}

#[tokio::test]
async fn beyond_the_bound_connections_wait_and_those_that_idle_make_room() {
    let served = Listening::with(Options { connections_max: 2, ..Options::default() }).await;
    let (mut first, mut second) = (served.connect().await, served.connect().await);
    for client in [&mut first, &mut second] {
        assert_eq!(client.ask(&get("/health")).await.0, 200);
    }
    // Both idle.
    assert_eq!(served.ask(&get("/health")).await.0, 200);
    assert_eq!((first.rest().await, second.rest().await), (String::new(), String::new()));
    // Two that are read do not make room; what is beyond waits for one of them.
    let (mut first, mut second) = (served.connect().await, served.connect().await);
    for client in [&mut first, &mut second] {
        client.write(&subscribe()).await;
        client.until(": connected").await;
    }
    let mut third = served.connect().await;
    third.write(&get("/health")).await;
    let early = tokio::time::timeout(SOON, third.socket.readable()).await;
    assert!(early.is_err(), "it is answered while there is no room");
    drop(first);
    assert_eq!(third.answer().await.0, 200);
    drop(second);
    served.finish().await;
}

#[tokio::test]
async fn streams_leave_connections_for_requests() {
    let served = Listening::with(Options { connections_max: 10, ..Options::default() }).await;
    let mut readers = Vec::new();
    for _ in 0..9 {
        let mut reader = served.connect().await;
        reader.write(&subscribe()).await;
        reader.until(": connected").await;
        readers.push(reader);
    }
    let (status, problem) = served.ask(&subscribe()).await;
    assert_eq!((status, &problem["code"], &problem["retryAfterMs"]), (503, &json!("too_many_streams"), &json!(1000)));
    assert_eq!(served.ask(&get("/health")).await.0, 200);
    drop(readers);
    served.finish().await;
}

#[tokio::test]
async fn the_end_answers_what_was_asked_and_waits_for_nobody_else() {
    let mut served = Listening::with(Options::default()).await;
    let (mut silent, mut idle) = (served.connect().await, served.connect().await);
    idle.ask(&get("/health")).await;
    let mut reader = served.connect().await;
    reader.write(&subscribe()).await;
    reader.until(": connected").await;
    let mut asking = served.connect().await;
    let whole = post(SEND, &message());
    // So much has come that the route waits for the rest.
    let (head, body) = whole.split_at(whole.len() - 5);
    asking.write(&head.replace("host: here\r\n", "host: here\r\nexpect: 100-continue\r\n")).await;
    asking.until("100 Continue\r\n\r\n").await;
    served.stop();
    assert_eq!((silent.rest().await, idle.rest().await), (String::new(), String::new()));
    assert!(reader.rest().await.ends_with("0\r\n\r\n"), "a stream ends whole");
    asking.write(body).await;
    let (status, sent) = asking.answer().await;
    assert_eq!((status, &sent["accepted"]), (200, &json!(true)));
    assert_eq!(asking.rest().await, "", "it was its connection's last");
    assert!(TcpStream::connect(served.address).await.is_err(), "nobody listens any more");
    served.kit.run_to_rest().await.unwrap();
    served.finish().await;
}

/// Another process, because a process may not open as many files as this takes at both ends.
#[cfg(all(target_os = "linux", feature = "cli"))]
mod crowd {
    use super::*;
    use crate::program::Program;

    /// How many connections hang; fewer if this process may not open so many files.
    const SLOW: u64 = 10_000;

    /// Of these, the files that the test opens beside.
    const OTHERS: u64 = 100;

    /// The most memory that one of them may take the server, whatever it has sent of its head.
    const BYTES_EACH_MAX: u64 = 24 * 1024;

    async fn health(program: &Program) -> u16 {
        let socket = in_time(TcpStream::connect(program.address)).await.expect("a connection");
        in_time(Client { socket, read: Vec::new() }.ask(&get("/health"))).await.0
    }

    #[tokio::test]
    async fn ten_thousand_slow_clients_leave_the_server_well() {
        let files = rlimit::increase_nofile_limit(SLOW + OTHERS).expect("a limit");
        let slow = SLOW.min(files - OTHERS);
        if slow < SLOW {
            eprintln!("{slow} clients instead of {SLOW}: this process may open {files} files");
        }
        let program = Program::start(&["--head-timeout", "10s", "--connections-max", &(SLOW + OTHERS).to_string()]);
        assert_eq!(health(&program).await, 200);
        let before = program.memory();
        let mut clients = Vec::new();
        for n in 0..slow {
            let socket = in_time(TcpStream::connect(program.address)).await.expect("a connection");
            let mut client = Client { socket, read: Vec::new() };
            // Some say nothing, some begin.
            if n % 2 == 0 {
                client.write("POST /api/agents/demo/send-message HTTP/1.1\r\nhost: here\r\nx-slow: ").await;
            }
            clients.push(client);
        }
        assert_eq!(health(&program).await, 200);
        let each = program.memory().saturating_sub(before) / slow;
        assert!(each < BYTES_EACH_MAX, "{each} bytes each");
        for client in &mut clients {
            assert_eq!(client.rest().await, "");
        }
        assert_eq!(health(&program).await, 200);
    }
}
