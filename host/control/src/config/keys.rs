//! The table of all settings: the single source of each key, its kind, bounds, default and meaning.
//!
//! Checking, the JSON schema and `docs/configuration.md` are derived from it.

use super::kinds::{DefaultValue, ItemKind, Key, Kind};
use super::rows::{integer, key, list, number, percent, size, table, time, unimplemented, word};
use crate::format::MAX_VERSION;
use crate::memory::MIN_BUDGET;

// Sizes are in bytes and durations in milliseconds, as `Kind` has its bounds.
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// The methods that a route may name: those of RFC 9110 that apply to a path, PATCH, QUERY and those of WebDAV.
#[rustfmt::skip]
pub const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "ACL", "COPY", "LOCK", "MKCALENDAR",
    "MKCOL", "MOVE", "PROPFIND", "PROPPATCH", "REPORT", "SEARCH", "UNLOCK",
];

/// The tables of an agent that `[defaults]` has as well: an agent inherits the keys that it does not set.
pub const INHERITABLE: &[&str] =
    &["limits", "instances", "snapshot", "mailbox", "breaker", "reload", "deploy", "rollback"];

/// The table of all settings, in the order of the reference.
#[rustfmt::skip]
pub static KEYS: &[Key] = &[
    key("caxton", Kind::Format, DefaultValue::Required("1"), "The format of this file."),

    table("http", "The listener where agents are called."),
    key("http.listen", Kind::Address, DefaultValue::Text("127.0.0.1:8080"),
        "IP address and port; port 0 lets the system choose."),
    integer("http.max-connections", 1, 100_000, 10_000, "Connections open at once; more wait to be accepted."),
    size("http.max-head", 8 * KIB, MIB, "64KiB", "The largest head of a request: its first line and headers."),
    size("http.max-body", 1, 1024 * GIB, "1GiB",
        "The largest body of a request to an HTTP agent. Message agents have `limits.message`."),
    time("http.head-timeout", 100, 5 * MINUTE, "10s", "How long a client may take to send the head of a request."),
    time("http.stall-timeout", 100, HOUR, "30s",
        "How long a client may pause while it sends a body or reads a response."),
    time("http.idle-timeout", 100, HOUR, "75s",
        "How long a connection may be open without a request. When places are short, the oldest of them are closed before. \
        These times and `max-head` hold at the listeners of `[admin]` and `[probes]` too."),
    size("http.buffer", 4 * KIB, 64 * MIB, "256KiB",
        "How much is held of a request to an HTTP agent before it is called, and of its response while the client takes it: \
        up to this size no instance waits for a client."),
    word("http.details", &["loopback", "always", "never"], &[], "loopback",
        "Who is told what went on inside an agent that failed, with its last words on stderr: callers on this machine \
        whose requests came by no proxy, everybody, or nobody."),

    list("http.hosts", ItemKind::HostName, "[\"agents.example.com\"]",
        "The host names that requests may be for, whatever their port: names, `*.` and a domain for all names below it, \
        IP addresses. A request for another gets 421; none means that every name is served."),

    table("http.tls",
        "TLS at this listener, with HTTP/2 and HTTP/1.1 by ALPN. Off without this table. The files are taken again when they \
        change, for new connections; while they cannot be used, what was taken before stays in use."),
    key("http.tls.cert", Kind::Text, DefaultValue::Required("\"tls/cert.pem\""),
        "The file of the certificate in PEM form, followed by those between it and its root; relative to the folder of this \
        file."),
    key("http.tls.key", Kind::Text, DefaultValue::Required("\"tls/key.pem\""),
        "The file of its private key in PEM form (PKCS #8, PKCS #1 or SEC1), without a passphrase."),
    key("http.tls.client-ca", Kind::Text, DefaultValue::Unset("\"tls/clients-ca.pem\""),
        "A file of certificates in PEM form. A client then has to show a certificate that one of them has issued, or its \
        connection is refused."),

    table("http.cors",
        "Which pages of other origins may call message agents from a browser. Off while `origins` is empty. The host \
        answers preflights itself. HTTP agents answer for themselves, unless a route says `cors = true`."),
    list("http.cors.origins", ItemKind::Origin, "[\"https://app.example\"]", "The origins of the pages; `*` means all."),
    list("http.cors.methods", ItemKind::Method, "[\"POST\"]",
        "The methods that they may use, of those that a route takes; none means all of these."),
    list("http.cors.headers", ItemKind::Header, "[\"content-type\"]",
        "The headers that they may send; `*` means all, none those that an agent sees of a request."),
    list("http.cors.expose", ItemKind::Header, "[\"caxton-conversation\"]",
        "The headers that they may read, beside those that every page may; none means those that the host sets."),
    key("http.cors.credentials", Kind::Boolean, DefaultValue::Boolean(false),
        "Whether they may send cookies and other credentials; only with origins that are named."),
    time("http.cors.max-age", 0, 24 * HOUR, "10m", "How long a browser may keep the answer to a preflight."),

    table("admin", "The listener of the management API, metrics and probes."),
    key("admin.listen", Kind::Address, DefaultValue::Text("127.0.0.1:8081"),
        "IP address and port; an address that other machines reach only with `[admin.tls]`. Port 0 lets the system \
        choose."),
    size("admin.audit-max", 64 * KIB, 64 * GIB, "64MiB",
        "The most that the audit log takes on disk. Beyond it the oldest lines are removed; their head is kept, so that the \
        rest still verifies."),

    table("admin.tls", "TLS at this listener, as in [`[http.tls]`](#httptls). The commands then need `https://`, and find \
        the host on their own machine by themselves."),
    key("admin.tls.cert", Kind::Text, DefaultValue::Required("\"tls/admin.pem\""), "As `http.tls.cert`."),
    key("admin.tls.key", Kind::Text, DefaultValue::Required("\"tls/admin-key.pem\""), "As `http.tls.key`."),
    key("admin.tls.client-ca", Kind::Text, DefaultValue::Unset("\"tls/operators-ca.pem\""),
        "As `http.tls.client-ca`; the token is asked for as well."),

    table("probes", "A listener for `/healthz`, `/readyz` and `/metrics` alone, for probes and scrapes from other machines."),
    key("probes.listen", Kind::Address, DefaultValue::Unset("\"0.0.0.0:9090\""),
        "IP address and port, where these three are answered without a token and nothing else is; port 0 lets the system \
        choose. They are answered at `admin.listen` as well."),

    table("store", "Where and how state is kept."),
    key("store.path", Kind::Text, DefaultValue::Text(".caxton"), "The data folder, relative to the folder of this file."),
    word("store.durability", &["fsync", "os", "memory"], &[], "fsync",
        "When a commit counts as safe: on the disk, with the operating system, or at once and for the life of the host."),
    integer("store.history", 0, 10_000_000, 100_000,
        "Handled messages that are kept, for threads and receipts; the oldest leave first."),
    size("store.history-max", MIB, 1024 * GIB, "1GiB",
        "Bytes of handled messages that are kept, for the same; the oldest leave first."),
    integer("store.dead-letters", 10_000, 10_000_000, 100_000, "Dead letters that are kept; the oldest leave first."),
    size("store.dead-letters-max", MIB, 1024 * GIB, "1GiB",
        "Bytes of dead letters that are kept, with what went wrong; the oldest leave first. An event tells how many left."),

    table("host", "The host as a whole."),
    time("host.drain", SECOND, 10 * MINUTE, "30s", "How long a stop waits for what is in flight."),
    key("host.instances", Kind::Integer { least: 64, most: 16_384 }, DefaultValue::Unset("1_000"),
        "Instances of all agents together that live at once, at most; idle ones make way. Left out, as many as the \
        machine's bound of memory mappings (`vm.max_map_count`) allows."),
    key("host.memory", Kind::Size { least: MIN_BUDGET, most: 64 * 1024 * GIB }, DefaultValue::Unset("\"2GiB\""),
        "What the host holds for others at once, at most: memories of instances, messages that wait, bodies, effects, \
        connections, logs, caches and compilers. Beyond it [requests wait and are then refused](operate.md#memory). Left out, \
        three quarters of the memory of its control group or of the machine."),

    table("conversations", "What conversations may be."),
    time("conversations.timeout", 5 * MINUTE, 24 * HOUR, "30m",
        "How long after its last message a conversation is open."),
    integer("conversations.participants", 1, 100, 10, "Agents that take part in one conversation, at most."),

    table("outgoing", "Calls of agents over HTTP, to the [places](outgoing.md) that `allow.http` grants."),
    time("outgoing.connect-timeout", 100, 5 * MINUTE, "10s",
        "How long a connection may take: the name, the address, TLS."),
    time("outgoing.first-byte-timeout", 100, HOUR, "60s",
        "How long a server may take to begin its response, once it has the request."),
    time("outgoing.stall-timeout", 100, HOUR, "30s",
        "How long a server may pause while the agent waits for more of a response, or while it takes a request."),
    integer("outgoing.calls", 1, 100_000, 1_000,
        "Calls of all agents at once; more wait, for `connect-timeout` at most. A call lasts until its response is read or \
        given up."),
    integer("outgoing.calls-per-message", 1, 100_000, 100, "Calls that handling one message or request may make."),
    size("outgoing.max-request-body", 1, 1024 * GIB, "100MiB", "The largest body that an agent may send."),
    size("outgoing.max-response-body", 1, 1024 * GIB, "100MiB",
        "The largest body that an agent may get. It is passed on as it comes, and not kept."),
    integer("outgoing.connections", 1, 100_000, 1_000,
        "TCP connections of all agents at once, to the places that `allow.tcp` grants; more wait, for `connect-timeout` at \
        most."),
    integer("outgoing.connections-per-message", 1, 100_000, 100,
        "TCP connections that handling one message or request may make."),
    size("outgoing.journal-max", KIB, 64 * MIB, "4MiB",
        "The most that is recorded of the calls of one message to places with `journal`, and the largest request that one of \
        them may have. A response beyond it is an error."),
    list("outgoing.ca", ItemKind::Text, "[\"tls/company-ca.pem\"]",
        "Files with certificates in PEM form whose issuers are trusted beside those of the system, relative to the folder \
        of this file. Taken again when they change, for new connections."),
    key("outgoing.proxy", Kind::Proxy, DefaultValue::Unset("\"http://proxy.example:3128\""),
        "A proxy over which places are called that are not private. It resolves their names, so that the host cannot check \
        the addresses. It may have a user and a password, `http://user:${secret:NAME}@…`, with one of the \
        [secrets](#secrets)."),

    key("secrets", Kind::Secrets, DefaultValue::EmptyTable("{ openai = { env = \"OPENAI_API_KEY\" } }"),
        "Texts that are kept out of this file. An agent is given one by `${secret:NAME}` in its `config`. They are read again \
        when their files change and at a reload, and a new value is for the next call."),
    key("secrets.folder", Kind::Text, DefaultValue::Unset("\"/run/secrets\""),
        "A folder whose files are secrets by their names, such as that of a container or systemd's credentials. A secret \
        that has a key of its own goes before a file of that name."),
    key("secrets.NAME.env", Kind::Text, DefaultValue::Unset("\"OPENAI_API_KEY\""),
        "The environment variable with the secret. A secret has one of the three."),
    key("secrets.NAME.file", Kind::Text, DefaultValue::Unset("\"/etc/caxton/openai.key\""),
        "The file with the secret, relative to the folder of this file. One line feed at its end is not part of it."),
    key("secrets.NAME.command", Kind::Text, DefaultValue::Unset("\"pass show openai\""),
        "A command line for `sh -c` that prints the secret, run in the folder of this file at the start and at each reload, \
        for 10 s at most. One line feed at the end is not part of it."),

    key("budgets", Kind::Budgets, DefaultValue::EmptyTable(""), "What all that follows from one message or call from outside may use, over all agents: [budgets](budgets.md) that routes, schedules, agents and callers name."),
    key("budgets.NAME.messages", Kind::Integer { least: 1, most: 1_000_000_000 }, DefaultValue::Unset("200"), "Messages that follow: sends, requests, replies and timers."),
    key("budgets.NAME.calls", Kind::Integer { least: 1, most: 1_000_000_000 }, DefaultValue::Unset("50"), "Calls over HTTP."),
    key("budgets.NAME.bytes", Kind::Size { least: 1, most: 1024 * GIB }, DefaultValue::Unset("\"10MiB\""), "The bodies of those calls, in both directions."),
    key("budgets.NAME.cpu", Kind::Time { least: 1, most: 24 * HOUR }, DefaultValue::Unset("\"30s\""), "Time of handlers on a core."),
    key("budgets.NAME.time", Kind::Time { least: 10, most: 365 * 24 * HOUR }, DefaultValue::Unset("\"10m\""), "Time by the clock since the first message."),
    key("budgets.NAME.units", Kind::Units, DefaultValue::EmptyTable("{ tokens = 100_000, microusd = 50_000 }"), "Units that places count by their `meter`."),
    list("budgets.NAME.callers", ItemKind::Text, "[\"token:shop\"]", "The callers that may name the budget in the header `caxton-budget`, by their identity; `*` for all that have one."),

    table("defaults", "What all agents inherit, and each may set for itself."),

    key("agents", Kind::Agents, DefaultValue::EmptyTable(""), "The agents, by name."),
    key("agents.NAME.component", Kind::Text, DefaultValue::Required("\"components/dist/triage.wasm\""),
        "The file of the agent's component, relative to the folder of this file."),
    key("agents.NAME.budget", Kind::BudgetName, DefaultValue::Unset("\"research\""), "The budget of what follows from a message or call to the agent that has none yet."),
    table("agents.NAME.build", "How the component is made from source."),
    key("agents.NAME.build.command", Kind::Text, DefaultValue::Required("\"components/build.sh triage\""),
        "A command line for `sh -c`, run in the folder of this file."),
    list("agents.NAME.build.watch", ItemKind::Text, "[\"components/triage/**\"]",
        "Files whose change runs the command again: files, folders with all in them, and globs (`*` and `**` match any number of folders too), from the folder of this file."),
    list("agents.NAME.capabilities", ItemKind::Capability, "[\"triage\"]",
        "What the agent can do; others send to `cap:NAME` to reach any agent that can."),
    table("agents.NAME.instances", "How many instances the agent has."),
    integer("agents.NAME.instances.min", 0, 1_000, 0,
        "Instances kept warm even when idle, as long as no other agent has nowhere to start one (`host.instances`).").capped(),
    integer("agents.NAME.instances.max", 1, 1_000, 4, "Instances at most; further messages wait.").capped(),
    key("agents.NAME.instances.reuse", Kind::Integer { least: 1, most: 1_000_000_000 }, DefaultValue::Unset("1_000"),
        "Messages or requests that an instance handles before another takes its place; 1 gives each a fresh one. Unset, \
        it is 1 for HTTP agents and 1,000 for agents that take messages, unless the component says how often it may be \
        used. Not for agents that keep state in their memory."),
    time("agents.NAME.instances.idle", 0, 24 * HOUR, "60s", "How long an instance above `min` stays without work."),
    table("agents.NAME.snapshot", "When and how much a stateful agent saves of its memory."),
    key("agents.NAME.snapshot.save", Kind::SaveMode, DefaultValue::Text("commit"),
        "When it saves beside the end of its instance: `commit`, after each message and as part of its commit; `every 20`, \
        after so many messages; `every 5s`, so long after a message at the latest; `idle`, not at all."),
    size("agents.NAME.snapshot.commit-max", KIB, 512 * KIB, "64KiB",
        "The largest memory that is part of commits. A larger one is saved every 5 s, which an event, a metric and \
        `caxton ps` tell.").capped(),
    size("agents.NAME.snapshot.max", KIB, GIB, "64MiB",
        "The most that it may save at once. A larger save fails; the instance and what was saved before are kept. \
        Only for agents that export `caxton:agent/snapshot`, and not above `limits.memory`.").capped(),
    table("agents.NAME.state", "The format of the agent's data: its keys, and its snapshot if it keeps state in memory."),
    integer("agents.NAME.state.version", 0, MAX_VERSION, 0,
        "The version of the format that the component writes. A change keeps the state as it was, for an undo, and runs \
        the component's `migrate`, if it exports one, before its first message."),
    key("agents.NAME.state.reads", Kind::Versions, DefaultValue::EmptyList("[1]"),
        "Other versions that the component can read. A rollout in which it would meet one that it cannot read is refused."),
    key("agents.NAME.config", Kind::TextMap, DefaultValue::EmptyTable("{ language = \"en\" }"),
        "Text that the agent reads through `wasi:config/store`. `${secret:NAME}` is one of the [secrets](#secrets), `$${` a \
        literal `${`."),
    table("agents.NAME.allow", "What the agent may reach. What is not listed is refused."),
    list("agents.NAME.allow.send", ItemKind::Receiver, "[\"billing\", \"cap:archive\"]",
        "To whom it may send: agents, and capabilities as `cap:NAME`."),
    list("agents.NAME.allow.env", ItemKind::Variable, "[\"LANG\"]", "Environment variables of the host that it sees."),
    word("agents.NAME.allow.clock", &["real", "none", "message"], &[], "real",
        "The clocks that it reads: those of the machine; none, so that reading one ends the call; or one that stands at the time \
        at which the message was accepted, the same in each attempt."),
    word("agents.NAME.allow.random", &["real", "none", "message"], &[], "real",
        "The random numbers that it gets: those of the machine; none, so that asking for one ends the call; or such as follow \
        from the id of the message, the same in each attempt. Everybody who knows the id knows these."),
    key("agents.NAME.allow.http", Kind::Places, DefaultValue::EmptyList("[\"https://api.example.com/v1/*\"]"),
        "The [places](outgoing.md) that it may call over HTTP: URLs, or tables with the keys below."),
    key("agents.NAME.allow.http.url", Kind::PlaceUrl, DefaultValue::Required("\"https://api.example.com/v1/*\""),
        "Scheme, host, port and path. `*.` and a domain stand for all names below it, `/*` at the end for all paths that \
        begin so; without a path it is all of the host."),
    list("agents.NAME.allow.http.methods", ItemKind::Method, "[\"POST\"]", "The methods; none means all."),
    key("agents.NAME.allow.http.headers", Kind::TextMap,
        DefaultValue::EmptyTable("{ authorization = \"Bearer ${secret:openai}\" }"),
        "Headers that the host adds to each call, and that the agent never sees. `${secret:NAME}` is one of the \
        [secrets](#secrets), with its value at the time of the call."),
    key("agents.NAME.allow.http.private", Kind::Boolean, DefaultValue::Boolean(false),
        "Whether the place may be at an address of this machine or of a private network."),
    key("agents.NAME.allow.http.meter", Kind::Meter, DefaultValue::EmptyTable("{ tokens = \"/usage/total_tokens\", microusd = { \"/usage/total_tokens\" = 2 } }"), "The units that a call has used, as its response says: a JSON pointer to a whole number, or pointers with factors, of which the sum counts. In server-sent events the last that has the figure."),
    key("agents.NAME.allow.http.at-most", Kind::Units, DefaultValue::EmptyTable("{ tokens = 4_000 }"), "The most units that one call uses. They are reserved before it, so that a [budget](budgets.md) is not passed by calls under way."),
    key("agents.NAME.allow.http.journal", Kind::Boolean, DefaultValue::Boolean(false),
        "Whether calls are [recorded with their message](outgoing.md#no-second-payment), so that another attempt is answered \
        from the record and makes none of them again."),
    key("agents.NAME.allow.http.unknown", Kind::Word { known: &["repeat", "fail"], later: &[] }, DefaultValue::Unset("\"fail\""),
        "What another attempt does about a recorded call that began and whose outcome is not known: make it again, or give the \
        message up as `unknown-outcome`. Unless set, calls with a safe method or an idempotency key are made again. Needs \
        `journal`."),
    key("agents.NAME.allow.http.idempotency", Kind::Word { known: &["header"], later: &[] }, DefaultValue::Unset("\"header\""),
        "`header` adds an `Idempotency-Key` that is the same in each attempt at a message, unless the agent sets one."),
    key("agents.NAME.allow.tcp", Kind::TcpPlaces, DefaultValue::EmptyList("[\"db.example.com:5432\"]"),
        "The [places](outgoing.md#connections-over-tcp) that it may connect to over TCP, such as databases: hosts with ports, \
        or tables with the keys below."),
    key("agents.NAME.allow.tcp.to", Kind::Text, DefaultValue::Required("\"db.example.com:5432\""),
        "Host and port. `*.` and a domain stand for all names below it, `10.0.0.0/8` for all addresses of a network."),
    key("agents.NAME.allow.tcp.private", Kind::Boolean, DefaultValue::Boolean(false),
        "Whether the name may lead to an address of this machine or of a private network."),
    key("agents.NAME.allow.files", Kind::Folders, DefaultValue::EmptyList("[\"data\"]"),
        "The [folders](files.md) that it sees: paths, or tables with the keys below. A path alone is read only, and seen as `/` \
        and its last part."),
    key("agents.NAME.allow.files.folder", Kind::Text, DefaultValue::Required("\"out\""),
        "The path of the folder, relative to the folder of this file."),
    key("agents.NAME.allow.files.name", Kind::Text, DefaultValue::Unset("\"/out\""),
        "The path by which the agent sees it; left out, `/` and the last part of `folder`."),
    key("agents.NAME.allow.files.write", Kind::Boolean, DefaultValue::Boolean(false),
        "Whether it may change what is in it. What it writes takes effect at once, and is no part of a commit."),
    unimplemented("agents.NAME.allow.udp", "Where it may send datagrams to."),
    table("agents.NAME.limits", "What the agent may use."),
    size("agents.NAME.limits.memory", MIB, 4 * GIB, "64MiB",
        "Linear memories and tables of one instance, summed. Growth beyond fails in the guest.").capped(),
    time("agents.NAME.limits.cpu", 1, MINUTE, "1s", "Time on a core for one message.").capped(),
    key("agents.NAME.limits.fuel", Kind::Integer { least: 10_000, most: 1_000_000_000_000 }, DefaultValue::Unset("100_000_000"),
        "Instructions for one message: exact and repeatable, and slower. Off unless set.").capped(),
    time("agents.NAME.limits.time", 10, HOUR, "10s", "Time by the clock for one message, waits included.").capped(),
    size("agents.NAME.limits.message", 1, 10 * MIB, "256KiB", "The content of one message, in and out.").capped(),
    integer("agents.NAME.limits.sends", 0, 100_000, 1_000, "Messages that handling one message may send.").capped(),
    integer("agents.NAME.limits.writes", 0, 100_000, 1_000, "Writes to state that handling one message may make.").capped(),
    size("agents.NAME.limits.effects", KIB, GIB, "8MiB",
        "The contents that handling one message may send and the values that it may write, in all. They are one commit, \
        which other agents' commits wait for.").capped(),
    size("agents.NAME.limits.state", 0, 64 * GIB, "64MiB", "The agent's whole state: keys and values.").capped(),
    integer("agents.NAME.limits.timers", 0, 10_000_000, 100_000,
        "Messages that may wait for the agent until a time to come; the sender of one more gets an error. They are on disk \
        and count for nothing in `mailbox.depth` before they are due.").capped(),
    integer("agents.NAME.limits.hops", 1, 1_000_000, 64, "The most hops of a message: the messages that caused one another before it.").capped(),
    integer("agents.NAME.limits.log-lines", 0, 1_000_000, 1_000,
        "Lines in the agent's log per second; the rest is counted and dropped.").capped(),
    table("agents.NAME.mailbox", "The order and bound of the messages that wait, and how often they are tried."),
    word("agents.NAME.mailbox.order", &["conversation", "agent", "none"], &[], "conversation",
        "Which messages are handled in order, never two at once: those of a conversation, all of the agent, or none."),
    integer("agents.NAME.mailbox.depth", 1, 1_000_000, 10_000,
        "How many messages may wait; the sender of one more gets an error.").capped(),
    integer("agents.NAME.mailbox.attempts", 1, 20, 5, "How often a message is tried before it becomes a dead letter.").capped(),
    key("agents.NAME.mailbox.timeout", Kind::Time { least: SECOND, most: 24 * HOUR }, DefaultValue::Unset("\"1h\""),
        "How long a message may wait before it becomes a dead letter, `expired`.").capped(),
    word("agents.NAME.mailbox.on-dead", &["keep", "tell"], &[], "keep",
        "Whether the agent gets a `failure` from `host:dead` when a message that it was sent, or has sent, is given up, \
        and when nobody heard an answer of its own. Dead letters are kept in any case."),
    table("agents.NAME.mailbox.backoff", "How long a message that failed waits before it is tried again."),
    time("agents.NAME.mailbox.backoff.first", 100, 5 * MINUTE, "1s", "The wait after the first failure."),
    number("agents.NAME.mailbox.backoff.factor", 1.1, 5.0, 2.0, "What each further failure multiplies the wait with."),
    time("agents.NAME.mailbox.backoff.max", 100, 5 * MINUTE, "5m", "The longest wait; not below `first`."),
    number("agents.NAME.mailbox.backoff.jitter", 0.0, 1.0, 0.2,
        "How far chance moves a wait, up and down, as a part of it."),
    table("agents.NAME.breaker", "When calls no longer reach the agent because it fails."),
    integer("agents.NAME.breaker.faults", 1, 100, 10, "Messages and calls in a row that have to fail to open the breaker. One that is tried again counts once."),
    time("agents.NAME.breaker.reset", 5 * SECOND, 5 * MINUTE, "60s",
        "How long the breaker is open before one message is let through on trial."),
    key("agents.NAME.http", Kind::Tables, DefaultValue::EmptyList(""), "Routes that call the agent."),
    key("agents.NAME.http.route", Kind::Route, DefaultValue::Required("\"/tickets/{id}\""),
        "The path. `{id}` matches one segment, `{*rest}` at the end all that is left, be it nothing; literals go before \
         them."),
    list("agents.NAME.http.methods", ItemKind::Method, "[\"POST\"]", "The methods; none means all but TRACE."),
    word("agents.NAME.http.mode", &["request", "enqueue"], &[], "request",
        "Whether the caller waits for the reply, or gets 202 and the message's id at once."),
    key("agents.NAME.http.stream", Kind::Boolean, DefaultValue::Boolean(false),
        "Whether an HTTP agent is called as soon as the head of a request has come, for clients that wait for a part of the \
        response before they send the rest. An instance then waits for a client that sends slowly."),
    key("agents.NAME.http.conversation", Kind::Text, DefaultValue::Unset("\"order-{id}\""),
        "What names the conversation of each request, with parameters of the route and headers (`{header:x-order}`), so that \
         requests for one thing are handled one after the other. It goes before `caxton-conversation`."),
    key("agents.NAME.http.budget", Kind::BudgetName, DefaultValue::Unset("\"research\""), "The budget of each request."),
    key("agents.NAME.http.cors", Kind::Boolean, DefaultValue::Unset("true"),
        "Whether `http.cors` holds for this route; left out, it holds for message agents and not for HTTP agents."),
    key("agents.NAME.http.rate", Kind::Rate, DefaultValue::Unset("\"100/s\""),
        "How many requests one caller may make; all of them may come at once. A caller without a credential is counted by its \
        address. More are answered with 429."),
    table("agents.NAME.http.auth", "Who may call the route: those with one of these credentials. Left out, everybody may."),
    list("agents.NAME.http.auth.tokens", ItemKind::CallerToken, "[\"shop\", \"bank=sha256:HEX\"]",
        "Tokens: the names of those that `caxton token` has made, or the name of a caller with the SHA-256 of its token."),
    key("agents.NAME.http.auth.hmac", Kind::TextMap, DefaultValue::EmptyTable("{ shop = \"file:keys/shop.key\" }"),
        "Callers that sign their requests, each with the key that it shares with the host: `file:PATH`, relative to the folder \
        of this file, or `env:NAME`."),
    table("agents.NAME.http.auth.jwt", "JSON web tokens of an issuer."),
    key("agents.NAME.http.auth.jwt.jwks", Kind::Text, DefaultValue::Required("\"keys/jwks.json\""),
        "The file with the issuer's public keys (a JWK set), relative to the folder of this file."),
    key("agents.NAME.http.auth.jwt.issuer", Kind::Text, DefaultValue::Required("\"https://id.example\""),
        "The issuer (`iss`) that a token has to have."),
    key("agents.NAME.http.auth.jwt.audience", Kind::Text, DefaultValue::Required("\"tickets\""),
        "The audience (`aud`) that a token has to have."),
    key("agents.NAME.schedule", Kind::Tables, DefaultValue::EmptyList(""), "Messages that the agent gets by the clock."),
    key("agents.NAME.schedule.cron", Kind::Cron, DefaultValue::Required("\"0 */5 * * * *\""),
        "The times: minute, hour, day, month and weekday, or six fields with the second first."),
    key("agents.NAME.schedule.timezone", Kind::Timezone, DefaultValue::Text("UTC"),
        "The time zone of the times, by its IANA name such as `Europe/Berlin`."),
    key("agents.NAME.schedule.content", Kind::AnyText, DefaultValue::Text(""), "What the message says; not more than `limits.message`."),
    key("agents.NAME.schedule.content-type", Kind::ContentType, DefaultValue::Text("text/plain; charset=utf-8"),
        "How the content is to be read."),
    word("agents.NAME.schedule.missed", &["skip", "latest", "all"], &[], "latest",
        "Which times are made up for that passed while the host stood still: none, the last, or each."),
    key("agents.NAME.schedule.budget", Kind::BudgetName, DefaultValue::Unset("\"research\""), "The budget of each message."),
    table("agents.NAME.deploy", "How a changed declaration reaches traffic."),
    word("agents.NAME.deploy.strategy", &["immediate", "rolling", "blue-green", "canary"], &[], "rolling",
        "At once, in batches of instances, by a full second set, or by weight."),
    key("agents.NAME.deploy.batch", Kind::Batch, DefaultValue::Integer(1),
        "rolling: instances that are replaced at a time, or how many of a hundred, such as `25%`."),
    time("agents.NAME.deploy.keep-warm", 0, 24 * HOUR, "5m",
        "blue-green: how long the old instances stand for an instant undo."),
    key("agents.NAME.deploy.steps", Kind::CanarySteps,
        DefaultValue::Unset("[{ weight = 5, for = \"5m\" }, { pause = true }, { weight = 50, for = \"10m\" }]"),
        "canary: the weights in percent and how long each is held; a pause lasts until `caxton rollout promote`."),
    time("agents.NAME.deploy.timeout", 30 * SECOND, 30 * MINUTE, "5m",
        "How long the host's own work may take; pauses, step times and waits for messages are not counted."),
    table("agents.NAME.reload", "How changed bytes of the component reach traffic."),
    word("agents.NAME.reload.strategy", &["graceful", "immediate", "parallel", "traffic-splitting"], &[], "graceful",
        "With the old one drained, at once, after comparing answers to copies of messages, or by weight; the new revision is ready before."),
    key("agents.NAME.reload.watch", Kind::Boolean, DefaultValue::Boolean(true),
        "Whether a change of the component's file is taken up at once."),
    time("agents.NAME.reload.drain", 5 * SECOND, 10 * MINUTE, "60s",
        "How long the old revision may take to finish what is in flight."),
    word("agents.NAME.reload.state", &["migrate", "discard"], &[], "migrate",
        "What becomes of the state in memory: the new revision takes it over, or begins anew."),
    key("agents.NAME.reload.steps", Kind::Weights, DefaultValue::Unset("[5, 10, 25, 50, 75, 100]"),
        "traffic-splitting: the weights in percent."),
    time("agents.NAME.reload.every", SECOND, 24 * HOUR, "30s", "traffic-splitting: how long each weight is held."),
    time("agents.NAME.reload.for", SECOND, HOUR, "60s",
        "parallel: how long to compare; with `min-messages` compared it is over before, and with none it waits for one."),
    integer("agents.NAME.reload.min-messages", 1, 1_000_000, 100,
        "parallel: how many copies of messages are enough."),
    percent("agents.NAME.reload.match", 0.0, 100.0, "100%", "parallel: how many answers must agree."),
    list("agents.NAME.reload.ignore", ItemKind::Text, "[\"reply.at\", \"**.id\"]",
        "parallel: where answers may differ, beside what differs when the running revision is compared with itself."),
    time("agents.NAME.reload.timeout", 30 * SECOND, 30 * MINUTE, "5m",
        "How long the host's own work may take; pauses, step times and waits for messages are not counted."),
    table("agents.NAME.rollback", "When a new revision is taken back, and what is kept to go back to."),
    key("agents.NAME.rollback.automatic", Kind::Boolean, DefaultValue::Boolean(true),
        "Whether a new revision that does worse is taken back without being asked."),
    percent("agents.NAME.rollback.errors", 0.0, 100.0, "5%",
        "When the new one fails at so many points more of its messages than the old one in the same window, by more than chance explains. While it only seems to, up to ten times `min-messages` are waited for. Also when the old one, beside the new one, fails at so many points more than it did before."),
    key("agents.NAME.rollback.errors-above", Kind::Percent { least: 0.0, most: 100.0 }, DefaultValue::Unset("\"20%\""),
        "Above so many failed messages of the new revision, whatever the old one does. Off unless set."),
    percent("agents.NAME.rollback.slower", 0.0, 10_000.0, "50%",
        "When its p95 is above that of the old one, in the same window, by more than this. Messages that failed are in neither."),
    time("agents.NAME.rollback.slower-min", 0, HOUR, "10ms",
        "A p95 that is not above this is not slow, however fast the old one is."),
    percent("agents.NAME.rollback.probes", 0.0, 100.0, "50%", "Below so many probes that passed."),
    key("agents.NAME.rollback.memory", Kind::Size { least: MIB, most: 4 * GIB }, DefaultValue::Unset("\"100MiB\""),
        "Above so much memory of one instance of the new revision. Off unless set."),
    integer("agents.NAME.rollback.min-messages", 0, 1_000_000, 100,
        "With fewer messages a new revision is not judged, and is never healthy."),
    word("agents.NAME.rollback.sticky", &["idle", "conversation", "none"], &[], "idle",
        "Where conversations are while traffic is split: with the revision that has something of theirs open, with the one they began with, or anywhere."),
    integer("agents.NAME.rollback.rehearse", 0, 10_000, 0,
        "How many of the last messages a new revision has to handle on a copy before any traffic moves; with 0 none are kept.").capped(),
    key("agents.NAME.rollback.match", Kind::Percent { least: 0.0, most: 100.0 }, DefaultValue::Unset("\"90%\""),
        "When fewer of the answers that a rehearsal compares are alike, the new revision is refused, and so is an undo. Off \
        unless set."),
    integer("agents.NAME.rollback.keep", 0, 100, 3,
        "Old revisions that are kept for an undo, with their bytes, settings and snapshots."),

    table("ceilings",
        "What no agent may exceed. A default above a ceiling is lowered to it, and a value that the file sets above it is an \
        error. [The operator's own file](policy.md) may have this table too: then the lower of two ceilings holds."),

    table("policy",
        "Rules that a component has to follow, or it is refused before anything of it runs. [The operator's own file](policy.md) \
        may have this table too: then both hold, and this one may not be looser."),
    list("policy.imports", ItemKind::NamePattern, "[\"caxton:agent/*\", \"wasi:*\"]",
        "The interfaces that a component may import, by name with `*` for any text; without `@`, in every version. Left out, all \
        that the host has."),
    list("policy.forbidden-exports", ItemKind::NamePattern, "[\"wasi:http/*\"]",
        "The interfaces that a component may not export, written likewise."),
    key("policy.max-component", Kind::Size { least: KIB, most: 100 * MIB }, DefaultValue::Unset("\"20MiB\""),
        "The largest component. Without it, 100 MiB."),
    list("policy.digests", ItemKind::AllowedDigest, "[\"sha256:HEX\", \"triage=sha256:HEX\"]",
        "The SHA-256 of the components that may run, of all agents or of the one that is named. An agent that is named runs only \
        what stands with its name."),
    word("policy.signatures", &["off", "required"], &[], "off",
        "Whether a component needs a signature by one of `keys`, in the file beside it that `caxton sign` writes."),
    list("policy.keys", ItemKind::PublicKey, "[\"ed25519:HEX\"]",
        "The public keys that are trusted to sign components, as `caxton sign --new-key` prints them."),
    list("policy.features", ItemKind::Feature, "[\"simd\", \"bulk-memory\"]",
        "The proposals of WebAssembly that a component may use beyond version 1. Left out, all that the host takes."),
    word("policy.files", &["write", "read", "none"], &[], "write",
        "The folders that agents may be granted: also such that they write to, such that they only read, or none."),
    word("policy.tcp", &["any", "public", "none"], &[], "any",
        "The places for TCP that agents may be granted: all, such as are of the public internet only, or none."),
];
