use super::*;
use crate::lab::bench::summary::tests::{axes, plan};

fn stacks() -> Vec<(String, bool)> {
    vec![(String::from("tokio"), false), (String::from("tokio-uring"), true)]
}

fn names(axes: &Axes) -> Vec<String> {
    labels(&axes.cells().unwrap())
}

#[test]
fn servers_that_are_compared_stand_next_to_each_other() {
    let axes = Axes {
        stacks: stacks(),
        clients: vec![Client::KeepAlive, Client::Close],
        fd_limits: vec![1_024, 65_536],
        ..axes()
    };
    let expected = [
        "tokio, 1024 fds, keep-alive",
        "tokio-uring, 1024 fds, keep-alive",
        "tokio, 65536 fds, keep-alive",
        "tokio-uring, 65536 fds, keep-alive",
        "tokio, 1024 fds, close",
        "tokio-uring, 1024 fds, close",
        "tokio, 65536 fds, close",
        "tokio-uring, 65536 fds, close",
    ];
    assert_eq!(names(&axes), expected);
}

#[test]
fn what_makes_no_difference_is_not_varied() {
    let axes = Axes {
        stacks: stacks(),
        works: vec![Work::Events, Work::Echo],
        producers: vec![ProducerKind::Base, ProducerKind::Threaded],
        tunings: vec![String::from("default"), String::from("tuned")],
        kafkas: vec![Kafka::None, Kafka::Embedded],
        cures: vec![String::from("all"), String::from("none")],
        ..axes()
    };
    let names = names(&axes);
    let count = |words: &str| names.iter().filter(|name| name.contains(words)).count();
    // tokio, and tokio-uring with two cures: three servers.
    assert_eq!(
        (count("echo"), count("no Kafka"), count("Kafka embedded")),
        (3, 6, 12),
        "{names:#?}"
    );
    assert_eq!(names[0], "tokio, events, no Kafka");
    assert!(
        names
            .contains(&String::from("tokio-uring, events, Kafka embedded, base, tuned, cure none"))
    );
    let mut keys: Vec<String> = axes.cells().unwrap().iter().map(Cell::key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), names.len(), "keys tell cells apart");
}

#[test]
fn others_get_a_broker_where_they_have_a_place_for_it() {
    let servers = ["a=./a {port}", "b=./b {port} {kafka} {topic}"].map(|it| it.parse().unwrap());
    let axes = Axes {
        servers: servers.into(),
        kafkas: vec![Kafka::Embedded, Kafka::None],
        tunings: vec![String::from("default"), String::from("tuned")],
        ..axes()
    };
    assert_eq!(names(&axes), ["a, no Kafka", "b, Kafka mock", "b, no Kafka"]);
    let Server::Foreign { command, .. } = &axes.cells().unwrap()[1].server else { panic!("own") };
    let words = foreign_words(command, 80, Some("h:1"), "events");
    assert_eq!(words, ["./b", "80", "h:1", "events"]);
}

#[test]
fn too_many_none_and_twins_are_refused() {
    let refused = |axes: Axes| axes.cells().unwrap_err();
    assert!(refused(axes()).contains("nothing to compare"));
    let twins =
        Axes { stacks: stacks(), servers: vec!["tokio=x {port}".parse().unwrap()], ..axes() };
    assert!(refused(twins).contains("two servers are called tokio"));
    let many = Axes { stacks: stacks(), connections: (1..=200).collect(), ..axes() };
    assert!(refused(many).contains("more than 256 cells"));
}

#[test]
fn commands_say_what_is_special() {
    let own = Own {
        stack: String::from("tokio"),
        work: Work::Events,
        producer: Some(ProducerKind::Threaded),
        tuning: Some(String::from("default")),
        kafka: Kafka::Embedded,
        cure: None,
        threads: 1,
    };
    let begin = "serve tokio --listen 127.0.0.1:0 --json";
    let cases = [
        (own.clone(), None, "--kafka embedded"),
        (Own { kafka: Kafka::Mock, ..own.clone() }, Some("h:9"), "--kafka h:9"),
        (
            Own { producer: None, tuning: None, kafka: Kafka::None, threads: 2, ..own.clone() },
            None,
            "--kafka none --threads 2",
        ),
        (
            Own {
                producer: Some(ProducerKind::Future),
                tuning: Some(String::from("tuned")),
                cure: Some(String::from("none")),
                ..own.clone()
            },
            None,
            "--kafka embedded --producer future --tuning tuned --cure none",
        ),
        (
            Own { work: Work::Echo, producer: None, tuning: None, kafka: Kafka::None, ..own },
            None,
            "--work echo",
        ),
    ];
    for (own, bootstrap, expected) in cases {
        let words = serve_words(&own, bootstrap, "events").join(" ");
        assert_eq!(words, format!("{begin} {expected}"));
    }
}

#[test]
fn servers_of_others_are_taken_apart_as_a_shell_would() {
    let server: Foreign = "my=./run --port {port} 'two words' a\\ b".parse().unwrap();
    assert_eq!(
        (server.name.as_str(), &server.words[3..]),
        ("my", &["two words", "a b"].map(str::to_owned)[..])
    );
    let cases = [
        ("no command", "'name=COMMAND'"),
        ("=x {port}", "1 to 48 characters"),
        ("a b=x {port}", "none of them a blank"),
        ("a=", "1 to 256 words"),
        ("a='x {port}", "quotation mark"),
        ("a=x 8080", "{port}"),
    ];
    for (text, words) in cases {
        let refused = text.parse::<Foreign>().unwrap_err();
        assert!(refused.contains(words), "{text}: {refused}");
    }
}

#[test]
fn brokers_are_addresses() {
    let cases = [
        ("none", Some(Kafka::None)),
        ("embedded", Some(Kafka::Embedded)),
        ("mock", Some(Kafka::Mock)),
        ("remote", Some(Kafka::Remote)),
        ("h:9092", Some(Kafka::Brokers(String::from("h:9092")))),
        ("h", None),
        ("h:0", None),
        (":1", None),
        ("a b:1", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse::<Kafka>().ok(), expected, "{text}");
    }
}

#[test]
fn a_plan_is_known_by_what_decides_its_figures() {
    let plan = plan(2, 3);
    let hash = plan.hash();
    assert_eq!(
        (hash.len(), Plan { rounds: 9, baseline: 1, ..plan.clone() }.hash()),
        (16, hash.clone())
    );
    let saturation = Some(Saturation { p99_max_us: 1, step_ms: 1 });
    let others = [
        Plan { time_ms: 1, ..plan.clone() },
        Plan { warm_up_ms: 1, ..plan.clone() },
        Plan { idle_connections: 1, ..plan.clone() },
        Plan { build: String::new(), ..plan.clone() },
        Plan { saturation, ..plan.clone() },
        Plan { cells: plan.cells[1..].to_vec(), ..plan.clone() },
    ];
    for other in others {
        assert_ne!(other.hash(), hash, "{other:?}");
    }
}

#[test]
fn idle_connections_leave_room_for_the_server() {
    let mut cell = plan(1, 1).cells.remove(0);
    assert_eq!((cell.idle_connections(500), cell.idle_connections(5_000)), (500, 896));
    cell.fd_limit = 64;
    assert_eq!(cell.idle_connections(500), 0);
}
