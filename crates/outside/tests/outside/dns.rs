//! The resolver against a name server of our own, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Message, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tempalias_address::Domain;
use tempalias_outside::dns::{Dns, DnsError, Hickory, MxAnswer, MxHost, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// How the name server takes a question.
enum Answer {
    Records(Vec<(&'static str, RData)>),
    Code(ResponseCode),
    Silence,
}

struct NameServer {
    address: SocketAddr,
    questions: Arc<AtomicUsize>,
}

impl NameServer {
    async fn start(answer: impl Fn(&str, RecordType) -> Answer + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let questions = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&questions);
        tokio::spawn(async move {
            let mut packet = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                counter.fetch_add(1, Ordering::SeqCst);
                let question = Message::from_vec(&packet[..length]).unwrap();
                let query = question.queries[0].clone();
                let reply = match answer(&query.name().to_ascii(), query.query_type()) {
                    Answer::Silence => continue,
                    Answer::Code(code) => reply(&question, &query, code, vec![]),
                    Answer::Records(records) => reply(&question, &query, ResponseCode::NoError, records),
                };
                socket.send_to(&reply, from).await.unwrap();
            }
        });
        Self { address, questions }
    }

    fn resolver(&self) -> Hickory {
        resolver(&[self.address], Duration::from_secs(5))
    }
}

fn reply(question: &Message, query: &Query, code: ResponseCode, records: Vec<(&str, RData)>) -> Vec<u8> {
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    reply.metadata.response_code = code;
    reply.metadata.recursion_available = true;
    reply.add_query(query.clone());
    for (name, data) in records {
        reply.add_answer(Record::from_rdata(name.parse().unwrap(), 300, data));
    }
    reply.to_vec().unwrap()
}

fn resolver(servers: &[SocketAddr], timeout: Duration) -> Hickory {
    Hickory::new(&Settings { servers: servers.to_vec(), timeout }).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

fn mx(preference: u16, host: &str) -> RData {
    RData::MX(MX::new(preference, name(host)))
}

fn a(last: u8) -> RData {
    RData::A(A::new(192, 0, 2, last))
}

fn aaaa(last: u16) -> RData {
    RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last))
}

fn zone(question: &str, kind: RecordType) -> Answer {
    use Answer::{Code, Records, Silence};
    Records(match (question, kind) {
        ("many.test.", RecordType::MX) => {
            vec![("many.test.", mx(20, "Two.Test.")), ("many.test.", mx(10, "one.test."))]
        }
        ("null.test.", RecordType::MX) => vec![("null.test.", mx(0, "."))],
        ("odd.test.", RecordType::MX) => {
            vec![
                ("odd.test.", mx(0, ".")),
                ("odd.test.", mx(5, "192.0.2.1.")),
                ("odd.test.", mx(7, "one.test.")),
            ]
        }
        ("chain.test.", RecordType::MX) => vec![
            ("chain.test.", RData::CNAME(CNAME(name("link.test.")))),
            ("link.test.", RData::CNAME(CNAME(name("many.test.")))),
        ],
        ("broken.test.", _) | ("half.test.", RecordType::AAAA) => return Code(ResponseCode::ServFail),
        ("refused.test.", _) => return Code(ResponseCode::Refused),
        ("silent.test.", _) => return Silence,
        ("both.test.", RecordType::A) => vec![("both.test.", a(1)), ("both.test.", a(2))],
        ("both.test.", RecordType::AAAA) => vec![("both.test.", aaaa(1))],
        ("v6only.test.", RecordType::AAAA) => vec![("v6only.test.", aaaa(2))],
        ("half.test.", RecordType::A) => vec![("half.test.", a(3))],
        ("alias.test.", RecordType::A) => {
            vec![("alias.test.", RData::CNAME(CNAME(name("both.test.")))), ("both.test.", a(1))]
        }
        ("bare.test." | "v6only.test." | "alias.test.", _) => vec![],
        _ => return Code(ResponseCode::NXDomain),
    })
}

#[tokio::test]
async fn what_a_domain_says_about_its_mail() {
    let server = NameServer::start(zone).await;
    let dns = server.resolver();
    let host = |preference, host: &str| MxHost { preference, host: domain(host) };
    for (of, mut expected) in [
        ("many.test", Ok(MxAnswer::Hosts(vec![host(10, "one.test"), host(20, "two.test")]))),
        ("chain.test", Ok(MxAnswer::Hosts(vec![host(10, "one.test"), host(20, "two.test")]))),
        ("odd.test", Ok(MxAnswer::Hosts(vec![host(7, "one.test")]))),
        ("null.test", Ok(MxAnswer::Null)),
        ("bare.test", Ok(MxAnswer::Unspecified)),
        ("gone.test", Err(DnsError::NoSuchDomain)),
        ("broken.test", Err(DnsError::Temporary)),
        ("refused.test", Err(DnsError::Temporary)),
    ] {
        let mut answer = dns.mx(&domain(of)).await;
        for answer in [&mut answer, &mut expected] {
            if let Ok(MxAnswer::Hosts(hosts)) = answer {
                hosts.sort_by_key(|host| host.preference);
            }
        }
        assert_eq!(answer, expected, "{of}");
    }
}

#[tokio::test]
async fn what_addresses_a_host_has() {
    let server = NameServer::start(zone).await;
    let dns = server.resolver();
    for (of, expected) in [
        ("both.test", Ok(vec!["192.0.2.1", "192.0.2.2", "2001:db8::1"])),
        ("v6only.test", Ok(vec!["2001:db8::2"])),
        ("alias.test", Ok(vec!["192.0.2.1"])),
        // Half an answer is enough to try.
        ("half.test", Ok(vec!["192.0.2.3"])),
        ("bare.test", Ok(vec![])),
        ("gone.test", Err(DnsError::NoSuchDomain)),
        ("broken.test", Err(DnsError::Temporary)),
    ] {
        let expected = expected.map(|ips| ips.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<_>>());
        let mut answer = dns.addresses(&domain(of)).await;
        if let Ok(ips) = &mut answer {
            ips.sort();
        }
        assert_eq!(answer, expected, "{of}");
    }
}

#[tokio::test]
async fn silence_ends_in_bounded_time() {
    let server = NameServer::start(zone).await;
    let dns = resolver(&[server.address], Duration::from_millis(200));
    let began = Instant::now();
    assert_eq!(dns.mx(&domain("silent.test")).await, Err(DnsError::Temporary));
    assert_eq!(dns.addresses(&domain("silent.test")).await, Err(DnsError::Temporary));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn no_server_at_all_is_a_failure_for_now() {
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let dns = resolver(&[nobody], Duration::from_millis(500));
    assert_eq!(dns.mx(&domain("many.test")).await, Err(DnsError::Temporary));
}

#[tokio::test]
async fn answers_are_kept_and_failures_are_not() {
    let failing = Arc::new(AtomicUsize::new(1));
    let switch = Arc::clone(&failing);
    let server = NameServer::start(move |question, kind| {
        if switch.load(Ordering::SeqCst) == 1 {
            Answer::Code(ResponseCode::ServFail)
        } else {
            zone(question, kind)
        }
    })
    .await;
    let dns = server.resolver();
    assert_eq!(dns.mx(&domain("null.test")).await, Err(DnsError::Temporary));
    failing.store(0, Ordering::SeqCst);
    assert_eq!(dns.mx(&domain("null.test")).await, Ok(MxAnswer::Null));
    let asked = server.questions.load(Ordering::SeqCst);
    assert_eq!(dns.mx(&domain("null.test")).await, Ok(MxAnswer::Null));
    assert_eq!(server.questions.load(Ordering::SeqCst), asked);
}

#[tokio::test]
async fn a_failing_server_does_not_hide_a_working_one() {
    let broken = NameServer::start(|_, _| Answer::Code(ResponseCode::ServFail)).await;
    let silent = NameServer::start(|_, _| Answer::Silence).await;
    let working = NameServer::start(zone).await;
    for first in [broken.address, silent.address] {
        let dns = resolver(&[first, working.address], Duration::from_secs(5));
        for _ in 0..3 {
            assert_eq!(dns.mx(&domain("null.test")).await, Ok(MxAnswer::Null), "{first}");
        }
    }
}

/// Too long for a packet: the server cuts it off, and it is fetched over TCP from the same port.
#[tokio::test]
async fn a_long_answer_is_fetched_whole() {
    let hosts: Vec<String> = (0..100).map(|n| format!("exchanger-{n}.many.test.")).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            let mut reply = Message::from_vec(&packet[..length]).unwrap().into_response();
            reply.metadata.truncation = true;
            socket.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while let Ok(length) = stream.read_u16().await {
            let mut packet = vec![0; length.into()];
            stream.read_exact(&mut packet).await.unwrap();
            let question = Message::from_vec(&packet).unwrap();
            let records = hosts.iter().map(|host| ("many.test.", mx(10, host))).collect();
            let reply = reply(&question, &question.queries[0], ResponseCode::NoError, records);
            stream.write_u16(reply.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    let answer = resolver(&[address], Duration::from_secs(5)).mx(&domain("many.test")).await;
    assert!(matches!(answer, Ok(MxAnswer::Hosts(hosts)) if hosts.len() == 100));
}

#[tokio::test]
async fn only_the_name_itself_is_asked_for() {
    let server = NameServer::start(|question, _| {
        assert_eq!(question, "gone.test.", "no search list");
        Answer::Code(ResponseCode::NXDomain)
    })
    .await;
    assert_eq!(server.resolver().mx(&domain("gone.test")).await, Err(DnsError::NoSuchDomain));
    assert_eq!(server.questions.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn localhost_is_here() {
    let server = NameServer::start(zone).await;
    let addresses = server.resolver().addresses(&domain("localhost")).await.unwrap();
    assert!(!addresses.is_empty() && addresses.iter().all(std::net::IpAddr::is_loopback));
}
