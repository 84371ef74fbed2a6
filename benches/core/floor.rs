//! A receiver that understands nothing: what a mail costs whoever takes it from the kernel and answers. With one thread,
//! without timers, limits or memory of what it read, and with as few system calls as there can be: no receiver that is one
//! can be cheaper by much.
//!
//! `unsafe` is needed here to call the kernel by way of libc: no layer of Rust is to be measured with it.
#![allow(unsafe_code)]

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::null_mut;

const EVENTS: usize = 1_024;
const BUFFER: usize = 64 << 10;
/// As long as ours.
const GREETING: &[u8] =
    b"220 mx.example.com SMTP Guerrilla(0.1.0) #123456 (100) Thu, 1 Jan 1970 00:00:00 +0000\r\n";
const OK: &[u8] = b"250 2.1.0 OK\r\n";
const GO_ON: &[u8] = b"354 End data with <CR><LF>.<CR><LF>\r\n";
const SAVED: &[u8] = b"250 2.0.0 OK: queued as 0123456789abcdef01234567\r\n";
const BYE: &[u8] = b"221 2.0.0 Bye\r\n";
const END: &[u8; 5] = b"\r\n.\r\n";

/// What it knows of a connection: the last octets of the message that it is in.
type Message = Option<[u8; END.len()]>;

/// Serves for ever, once it has said where.
pub(super) fn serve() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("has a port");
    listener.set_nonblocking(true).expect("is a socket");
    println!("listening {}", listener.local_addr().expect("is bound"));
    let listener = listener.as_raw_fd();
    no_delay(listener);
    // SAFETY: it takes no pointer.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    watch(epoll, listener, libc::EPOLLIN);
    let mut messages: Vec<Message> = Vec::new();
    let mut buffer = vec![0; BUFFER];
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    loop {
        let most = i32::try_from(EVENTS).expect("is small");
        // SAFETY: there is room for as many events.
        let count = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), most, -1) };
        for event in events.iter().take(usize::try_from(count).unwrap_or(0)) {
            let socket = RawFd::try_from(event.u64).expect("is a descriptor");
            if socket == listener {
                accept(epoll, listener, &mut messages);
            } else if event.events & libc::EPOLLIN.cast_unsigned() != 0 {
                hear(socket, &mut buffer, message_of(&mut messages, socket));
            }
        }
    }
}

fn message_of(messages: &mut Vec<Message>, socket: RawFd) -> &mut Message {
    let at = usize::try_from(socket).expect("is a descriptor");
    if messages.len() <= at {
        messages.resize(at + 1, None);
    }
    messages.get_mut(at).expect("was made")
}

/// Inherited by those that it accepts.
fn no_delay(listener: RawFd) {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).expect("is small");
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_NODELAY);
    // SAFETY: the option is an integer of that size.
    unsafe { libc::setsockopt(listener, level, option, (&raw const on).cast(), size) };
}

fn watch(epoll: RawFd, socket: RawFd, events: libc::c_int) {
    let u64 = u64::try_from(socket).expect("is a descriptor");
    let mut event = libc::epoll_event { events: events.cast_unsigned(), u64 };
    // SAFETY: the event lives as long as the call.
    unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket, &raw mut event) };
}

fn accept(epoll: RawFd, listener: RawFd, messages: &mut Vec<Message>) {
    loop {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no address is asked for.
        let socket = unsafe { libc::accept4(listener, null_mut(), null_mut(), flags) };
        if socket < 0 {
            return;
        }
        *message_of(messages, socket) = None;
        watch(epoll, socket, libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET);
        send(socket, GREETING, 0);
    }
}

/// One read, or as many as the socket has octets for, and the answer to that.
fn hear(socket: RawFd, buffer: &mut [u8], message: &mut Message) {
    loop {
        // SAFETY: the buffer has as many octets.
        let count = unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        // Nothing more is there.
        let Ok(count) = usize::try_from(count) else { return };
        let Some(octets) = buffer.get(..count).filter(|octets| !octets.is_empty()) else {
            // SAFETY: it is ours, and nobody asks for it again.
            unsafe { libc::close(socket) };
            return;
        };
        answer(socket, octets, message);
        if count < buffer.len() {
            return;
        }
    }
}

fn answer(socket: RawFd, octets: &[u8], message: &mut Message) {
    if let Some(tail) = message {
        for octet in octets.iter().skip(octets.len().saturating_sub(END.len())) {
            tail.rotate_left(1);
            *tail.last_mut().expect("has some") = *octet;
        }
        if tail == END {
            *message = None;
            send(socket, SAVED, 0);
        }
        return;
    }
    match octets.first() {
        Some(b'D') => {
            *message = Some(*b"....\n");
            send(socket, GO_ON, 0);
        }
        Some(b'Q') => {
            send(socket, BYE, libc::MSG_MORE);
            // SAFETY: it is ours, and nobody asks for it again.
            unsafe {
                libc::shutdown(socket, libc::SHUT_WR);
                libc::close(socket);
            }
        }
        _ => send(socket, OK, 0),
    }
}

fn send(socket: RawFd, octets: &[u8], flags: libc::c_int) {
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: there are as many octets.
    unsafe { libc::send(socket, octets.as_ptr().cast(), octets.len(), flags) };
}
