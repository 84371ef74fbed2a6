//! The listeners of a running core, and how a reload changes them.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::runtime::Handle;

use super::inherited::Inherited;
use super::listener::{Bound, Door, serve, set_mode};
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

/// What runs. Only the thread that starts, reloads and stops a core uses it.
#[derive(Debug)]
pub(crate) struct Listeners {
    runtime: Handle,
    shared: Arc<Shared>,
    /// Of one address there may be several sockets.
    running: HashMap<Key, Vec<Running>>,
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
    fn wait(self) {
        // An error says that the other end is gone, which is what it waits for.
        let _ = self.ended.recv();
    }
}

/// Binds servers, but those whose sockets are there already; what cannot be is told.
pub(crate) fn bind_all<'a>(
    servers: impl IntoIterator<Item = &'a ServerConfig>,
    inherited: &mut Inherited,
) -> (Vec<(Bound, ServerConfig)>, Failures) {
    let (mut bound, mut failures) = (Vec::new(), Vec::new());
    for server in servers {
        let sockets = inherited.take(&server.address);
        let listeners = if sockets.is_empty() {
            vec![Bound::bind(server)]
        } else {
            sockets.into_iter().map(|socket| Bound::adopt(&server.address, socket)).collect()
        };
        for listener in listeners {
            match listener {
                Ok(listener) => bound.push((listener, server.clone())),
                Err(error) => failures.push((server.name.clone(), error)),
            }
        }
    }
    (bound, failures)
}

impl Listeners {
    pub(crate) fn new(runtime: Handle, shared: Arc<Shared>) -> Self {
        Self { runtime, shared, running: HashMap::new(), servers: HashMap::new() }
    }

    /// Serves what is bound.
    pub(crate) fn serve(&mut self, bound: Vec<(Bound, ServerConfig)>) {
        for (listener, config) in bound {
            let address = listener.address();
            let key = key(&config);
            self.shared.log.write(Level::Info, "net", format_args!("listening on {address}"));
            let live = self.servers.entry(config.name.clone());
            let new = || Arc::new(Live::new(config, &self.shared.tenant));
            let live = Arc::clone(live.or_insert_with(new));
            let door = Arc::new(Door::new(listener.share().ok()));
            let (end, ended): (Sender<()>, _) = channel();
            let (shared, ours) = (Arc::clone(&self.shared), Arc::clone(&door));
            self.runtime.spawn(async move {
                serve(listener, live, ours, shared).await;
                drop(end);
            });
            self.running.entry(key).or_default().push(Running { address, door, ended });
        }
    }

    /// The address of each of `servers`, in their order, as far as they run.
    pub(crate) fn addresses(&self, servers: &[ServerConfig]) -> Vec<String> {
        let running = servers.iter().filter_map(|server| self.running.get(&key(server)));
        running.filter_map(|running| Some(running.first()?.address.clone())).collect()
    }

    /// The sockets of each of `servers` once more, to be handed over, by the addresses of the settings.
    pub(crate) fn sockets(&self, servers: &[ServerConfig]) -> Vec<(ListenAddress, OwnedFd)> {
        let running = servers.iter().filter_map(|server| {
            let running = self.running.get(&key(server))?;
            Some(running.iter().map(|one| (server.address.clone(), &one.door)))
        });
        running.flatten().filter_map(|(address, door)| Some((address, door.share()?))).collect()
    }

    /// Connections of each server.
    pub(crate) fn clients(&self) -> Vec<(String, usize)> {
        self.servers.iter().map(|(name, live)| (name.clone(), live.open())).collect()
    }

    /// Runs these servers and no others: those that stay obey their new config, those that are new are
    /// bound, those that are gone close, and their sessions end where a transaction does.
    pub(crate) fn reload(
        &mut self,
        servers: &[ServerConfig],
        inherited: &mut Inherited,
    ) -> Failures {
        for server in servers {
            if let Some(live) = self.servers.get(&server.name) {
                self.admit(server);
                live.obey(server.clone());
            }
        }
        let is_new = |server: &&ServerConfig| !self.running.contains_key(&key(server));
        let (bound, failed) = bind_all(servers.iter().filter(is_new), inherited);
        self.serve(bound);
        let closed = self.close_others(servers);
        if failed.is_empty() || !closed {
            return failed;
        }
        // What stood in the way may have been one of those that have just been closed.
        let names: Vec<&String> = failed.iter().map(|(name, _)| name).collect();
        let again = |server: &&ServerConfig| {
            names.contains(&&server.name) && !self.running.contains_key(&key(server))
        };
        let (bound, failed) = bind_all(servers.iter().filter(again), inherited);
        self.serve(bound);
        failed
    }

    /// Lets those connect whom a server that runs lets in now.
    fn admit(&self, server: &ServerConfig) {
        let (ListenAddress::Unix(path), Some(mode)) = (&server.address, server.unix_mode) else {
            return;
        };
        if self.running.contains_key(&key(server))
            && let Err(error) = set_mode(path, mode)
        {
            let name = &server.name;
            let what = format_args!("{name}: its unix_mode cannot be set: {error}");
            self.shared.log.write(Level::Error, "net", what);
        }
    }

    /// Closes every listener that none of `servers` has; whether there was one.
    fn close_others(&mut self, servers: &[ServerConfig]) -> bool {
        let stays = |key: &Key| servers.iter().any(|s| s.name == key.0 && s.address == key.1);
        let gone: Vec<Key> = self.running.keys().filter(|key| !stays(key)).cloned().collect();
        let gone: Vec<Running> =
            gone.iter().filter_map(|key| self.running.remove(key)).flatten().collect();
        for running in &gone {
            running.door.close();
        }
        self.servers.retain(|name, live| {
            let stays = servers.iter().any(|server| server.name == *name);
            if !stays {
                live.leave();
            }
            stays
        });
        self.shared.shutdown.tell();
        let closed = !gone.is_empty();
        for running in gone {
            self.shared.log.write(
                Level::Info,
                "net",
                format_args!("no longer listening on {}", running.address),
            );
            running.wait();
        }
        closed
    }
}
