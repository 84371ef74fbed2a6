//! The listeners of a running core, and how a reload changes them.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::runtime::Handle;

use super::bound::{Bound, set_mode};
use super::inherited::Inherited;
use super::listener::{Door, serve};
use super::live::Live;
use crate::config::{ListenAddress, ServerConfig};
use crate::log::Level;
use crate::server::Shared;

/// A server's name and one of its addresses.
type Key = (String, ListenAddress);

fn key(server: &ServerConfig) -> Key {
    (server.name.clone(), server.address.clone())
}

/// Which servers could not be bound, and why.
pub(crate) type Failures = Vec<(String, io::Error)>;

/// What runs. One thread at a time uses it: behind the lock of the core that it is of.
#[derive(Debug)]
pub(crate) struct Listeners {
    runtime: Handle,
    shared: Arc<Shared>,
    /// Of one address there may be several sockets.
    running: HashMap<Key, Vec<Running>>,
    /// Of another process, which does not serve them now.
    lent: Vec<Running>,
    servers: HashMap<String, Arc<Live>>,
}

#[derive(Debug)]
struct Running {
    /// With the port that was really taken.
    address: String,
    door: Arc<Door>,
    /// Nothing comes of it but its end, behind which the address is free.
    ended: Receiver<()>,
}

impl Running {
    fn bound_to(&self) -> Option<ListenAddress> {
        ListenAddress::parse(&self.address)
    }

    fn wait(self) {
        // An error says that the other end is gone, which is what it waits for.
        let _ = self.ended.recv();
    }
}

/// Binds servers, but those whose sockets are there already; what cannot be is told.
pub(crate) fn bind_all<'a>(
    servers: impl IntoIterator<Item = &'a ServerConfig>,
    inherited: &mut Inherited,
    bind: impl Fn(&ServerConfig) -> io::Result<Bound>,
) -> (Vec<(Bound, ServerConfig)>, Failures) {
    let (mut bound, mut failures) = (Vec::new(), Vec::new());
    for server in servers {
        let sockets = inherited.take(&server.address);
        if !sockets.is_empty() {
            bound.extend(sockets.into_iter().map(|socket| (socket, server.clone())));
            continue;
        }
        match bind(server) {
            Ok(socket) => bound.push((socket, server.clone())),
            Err(error) => failures.push((server.name.clone(), error)),
        }
    }
    (bound, failures)
}

impl Listeners {
    pub(crate) fn new(runtime: Handle, shared: Arc<Shared>) -> Self {
        Self { runtime, shared, running: HashMap::new(), lent: Vec::new(), servers: HashMap::new() }
    }

    /// Serves what is bound.
    pub(crate) fn serve(&mut self, bound: Vec<(Bound, ServerConfig)>) {
        for (bound, config) in bound {
            let key = key(&config);
            let running = self.run(bound, config);
            self.running.entry(key).or_default().push(running);
        }
    }

    fn run(&mut self, bound: Bound, config: ServerConfig) -> Running {
        let address = bound.address();
        self.shared.log.write(Level::Info, "net", format_args!("listening on {address}"));
        let live = self.servers.entry(config.name.clone());
        let new = || Arc::new(Live::new(config, &self.shared.tenant));
        let live = Arc::clone(live.or_insert_with(new));
        let (socket, file, kept) = bound.split();
        let door = Arc::new(Door::new(socket.share().ok(), file, kept));
        let (end, ended): (Sender<()>, _) = channel();
        let (shared, ours) = (Arc::clone(&self.shared), Arc::clone(&door));
        self.runtime.spawn(async move {
            serve(socket, live, ours, shared).await;
            drop(end);
        });
        Running { address, door, ended }
    }

    /// Serves these beside its own, and no others of another process any more: they are `kept`, so that nobody is
    /// turned away. What none of `servers` has is closed.
    pub(crate) fn serve_also(&mut self, mut lent: Inherited, servers: &[ServerConfig]) {
        self.give_back();
        for server in servers {
            for bound in lent.take(&server.address) {
                let running = self.run(bound, server.clone());
                self.lent.push(running);
            }
        }
    }

    fn give_back(&mut self) {
        let lent = std::mem::take(&mut self.lent);
        // Else nobody has to look.
        if !lent.is_empty() {
            self.end(lent);
        }
    }

    /// The addresses of each of `servers`, in their order, as far as they run; each once.
    pub(crate) fn addresses(&self, servers: &[ServerConfig]) -> Vec<String> {
        let running = servers.iter().filter_map(|server| self.running.get(&key(server)));
        let mut addresses: Vec<String> = running.flatten().map(|one| one.address.clone()).collect();
        addresses.dedup();
        addresses
    }

    /// The same by the names of the servers.
    pub(crate) fn addresses_by_server(
        &self,
        servers: &[ServerConfig],
    ) -> Vec<(String, Vec<String>)> {
        let mut found: Vec<(String, Vec<String>)> = Vec::new();
        for server in servers {
            let addresses = self.addresses(std::slice::from_ref(server));
            match found.iter_mut().find(|(name, _)| *name == server.name) {
                Some((_, known)) => known.extend(addresses),
                None => found.push((server.name.clone(), addresses)),
            }
        }
        for (_, addresses) in &mut found {
            addresses.dedup();
        }
        found
    }

    /// The sockets of each of `servers` once more, to be handed over, by the addresses of the settings.
    pub(crate) fn sockets(&self, servers: &[ServerConfig]) -> Vec<(ListenAddress, OwnedFd)> {
        let running = servers.iter().filter_map(|server| {
            let running = self.running.get(&key(server))?;
            Some(running.iter().map(|one| (server.address.clone(), &one.door)))
        });
        running.flatten().filter_map(|(address, door)| Some((address, door.share()?))).collect()
    }

    /// The files of unix sockets that were ours stay at the end; their addresses.
    pub(crate) fn leave_files(&self) -> Vec<ListenAddress> {
        let all = self.running.values().flatten();
        all.filter(|one| one.door.leave_file()).filter_map(Running::bound_to).collect()
    }

    /// The files of these unix sockets are removed when they close.
    pub(crate) fn own_files(&self, addresses: &[ListenAddress]) {
        for running in self.running.values().flatten() {
            if let Some(ListenAddress::Unix(path)) = running.bound_to()
                && addresses.contains(&ListenAddress::Unix(path.clone()))
            {
                running.door.own_file(&path);
            }
        }
    }

    /// Connections of each server.
    pub(crate) fn clients(&self) -> Vec<(String, usize)> {
        self.servers.iter().map(|(name, live)| (name.clone(), live.open())).collect()
    }

    /// Runs these servers and no others: those that stay obey their new config, those that are new are
    /// bound, those that are gone close, and their sessions end where a transaction does. A socket of one that is
    /// gone serves one that is new at the same address: who waits in its queue notices nothing. Where something
    /// fails, those that are gone and could not be bound again stay in `inherited`: who asked decides.
    pub(crate) fn reload(
        &mut self,
        servers: &[ServerConfig],
        inherited: &mut Inherited,
    ) -> Failures {
        // They may be of another server now: who lends them does so again.
        self.give_back();
        for server in servers {
            if let Some(live) = self.servers.get(&server.name) {
                self.admit(server);
                live.obey(server.clone());
            }
        }
        let gone = self.gone(servers);
        let new: Vec<&ServerConfig> =
            servers.iter().filter(|server| !self.running.contains_key(&key(server))).collect();
        let (taken, left) = self.take_over(&new, &gone, inherited);
        let bind = |server: &ServerConfig| self.bind_beside(server, &gone);
        let (bound, failed) = bind_all(left, inherited, bind);
        self.serve(taken);
        self.serve(bound);
        for server in &new {
            self.admit(server);
        }
        if !failed.is_empty() {
            // Only an address that is taken becomes free by closing; as root alone may bind some, it may not be
            // there again.
            let is_cured = failed.iter().all(|(_, error)| error.kind() == io::ErrorKind::AddrInUse);
            self.keep(&gone, inherited, |door| !is_cured || door.is_kept());
        }
        let closed = self.close(&gone, servers);
        // What stood in the way may have been one of those that have just been closed.
        let (in_use, mut failed): (Failures, Failures) = failed
            .into_iter()
            .partition(|(_, error)| closed && error.kind() == io::ErrorKind::AddrInUse);
        let again = new.into_iter().filter(|server| {
            let has_failed = in_use.iter().any(|(name, _)| *name == server.name);
            has_failed && !self.running.contains_key(&key(server))
        });
        let (bound, failed_again) = bind_all(again, inherited, Bound::bind);
        self.serve(bound);
        failed.extend(failed_again);
        failed
    }

    /// Listeners that none of `servers` has.
    fn gone(&self, servers: &[ServerConfig]) -> Vec<Key> {
        let stays = |key: &Key| servers.iter().any(|s| s.name == key.0 && s.address == key.1);
        let mut gone: Vec<Key> = self.running.keys().filter(|key| !stays(key)).cloned().collect();
        gone.sort_by(|one, other| one.0.cmp(&other.0));
        gone
    }

    /// The sockets of those that are gone for those of `new` at the same address, no longer served; and those for
    /// which there is none.
    fn take_over<'a>(
        &mut self,
        new: &[&'a ServerConfig],
        gone: &[Key],
        inherited: &Inherited,
    ) -> (Vec<(Bound, ServerConfig)>, Vec<&'a ServerConfig>) {
        let (mut found, mut left, mut ending) = (Vec::new(), Vec::new(), Vec::new());
        for server in new {
            let before = found.len();
            if !inherited.has(&server.address) {
                for running in self.take_running(&server.address, gone) {
                    let socket = running.door.hand_over();
                    running.door.close();
                    ending.push(running);
                    let again = |left| Bound::again(&server.address, left).ok();
                    found.extend(socket.and_then(again).map(|bound| (bound, (*server).clone())));
                }
            }
            if found.len() == before {
                left.push(*server);
            }
        }
        self.shared.shutdown.tell();
        ending.into_iter().for_each(Running::wait);
        (found, left)
    }

    /// Those of `gone` of which this is true are no longer served, and wait for who serves them again.
    fn keep(&mut self, gone: &[Key], inherited: &mut Inherited, is: impl Fn(&Door) -> bool) {
        let mut ending = Vec::new();
        for key in gone {
            let Some(running) = self.running.get_mut(key) else { continue };
            let (kept, left) = std::mem::take(running).into_iter().partition(|one| is(&one.door));
            let kept: Vec<Running> = kept;
            *running = left;
            for one in kept {
                if let Some(left) = one.door.hand_over()
                    && let Ok(bound) = Bound::again(&key.1, left)
                {
                    inherited.add(key.1.clone(), bound);
                }
                ending.push(one);
            }
        }
        self.end(ending);
    }

    /// Serves these no longer, and waits until they are closed here.
    fn end(&self, all: Vec<Running>) {
        for one in &all {
            one.door.close();
        }
        self.shared.shutdown.tell();
        for one in all {
            let what = format_args!("no longer listening on {}", one.address);
            self.shared.log.write(Level::Info, "net", what);
            one.wait();
        }
    }

    /// Those at an address, of the first of `gone` that has any.
    fn take_running(&mut self, address: &ListenAddress, gone: &[Key]) -> Vec<Running> {
        for key in gone {
            let Some(running) = self.running.get_mut(key) else { continue };
            let is_there =
                |one: &Running| key.1 == *address || one.bound_to().as_ref() == Some(address);
            let (taken, left) = std::mem::take(running).into_iter().partition(is_there);
            let taken: Vec<Running> = taken;
            *running = left;
            if !taken.is_empty() {
                return taken;
            }
        }
        Vec::new()
    }

    /// Binds a server also where one of those that are gone is still in its way, as one of all addresses is to one
    /// of a single one: both listen until the old one is closed.
    fn bind_beside(&self, server: &ServerConfig, gone: &[Key]) -> io::Result<Bound> {
        let port = |address: &ListenAddress| match address {
            ListenAddress::Tcp(address) => Some(address.port()),
            _ => None,
        };
        match Bound::bind(server) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let wanted = port(&server.address);
                let all = gone.iter().filter_map(|key| self.running.get(key)).flatten();
                let in_the_way = all.filter(|one| one.bound_to().as_ref().and_then(port) == wanted);
                // Of all of them, not of the first alone.
                let allowing = in_the_way.filter(|one| one.door.allow_beside()).count();
                if wanted.is_none() || allowing == 0 {
                    return Err(error);
                }
                Bound::bind_beside(server)
            }
            other => other,
        }
    }

    /// Lets those connect whom a server that runs lets in now.
    fn admit(&self, server: &ServerConfig) {
        let (ListenAddress::Unix(path), Some(mode)) = (&server.address, server.unix_mode) else {
            return;
        };
        // Somebody else's file has the mode that he has given it.
        let mut running = self.running.get(&key(server)).into_iter().flatten();
        if running.any(|one| one.door.has_file())
            && let Err(error) = set_mode(path, mode)
        {
            let name = &server.name;
            let what = format_args!("{name}: its unix_mode cannot be set: {error}");
            self.shared.log.write(Level::Error, "net", what);
        }
    }

    /// Closes listeners, and lets servers that are none of `servers` go; whether there were any.
    fn close(&mut self, gone: &[Key], servers: &[ServerConfig]) -> bool {
        let gone: Vec<Running> =
            gone.iter().filter_map(|key| self.running.remove(key)).flatten().collect();
        // First: who is accepted from now on is told.
        self.servers.retain(|name, live| {
            let stays = servers.iter().any(|server| server.name == *name);
            if !stays {
                live.leave();
            }
            stays
        });
        let closed = !gone.is_empty();
        self.end(gone);
        closed
    }
}
