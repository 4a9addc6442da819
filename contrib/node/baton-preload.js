'use strict';
// Loaded before the application (NODE_OPTIONS=--require, `preset = node`): listen(PORT) of an
// unmodified server takes the sockets that baton passed for that port, also several (127.0.0.1:80
// and [::1]:80); other ports listen themselves. The stop signal then lets such a server finish its
// requests, unless the application handles that signal itself. The first such server also answers at
// the worker's own probe listener, from the moment that it listens.

const net = require('net');
const path = require('path');
const { isMainThread } = require('worker_threads');

// HOST:PORT=FD;/PATH=FD, with the addresses as they are bound: a list for each port or path. Only of
// the process that baton started: its children inherit the variables but not the descriptors.
function passed() {
  const sockets = new Map();
  if (!isMainThread || process.env.LISTEN_PID !== String(process.pid)) return sockets;
  for (const item of (process.env.SERVER_STARTER_PORT || '').split(';')) {
    const [, address, fd] = /^(.+)=(\d+)$/.exec(item) || [];
    if (address === undefined) continue;
    const [, host, port] = /^\[?([^/]*?)\]?:(\d+)$/.exec(address) || [];
    const key = port === undefined ? path.resolve(address) : Number(port);
    if (!sockets.has(key)) sockets.set(key, []);
    sockets.get(key).push({ host, fd: Number(fd) });
  }
  return sockets;
}

// The descriptor of the listener named `probe`, the last one; undefined without it.
function passedProbe() {
  const names = (process.env.LISTEN_FDNAMES || '').split(':');
  if (!isMainThread || process.env.LISTEN_PID !== String(process.pid)) return undefined;
  return names[names.length - 1] === 'probe' ? 2 + names.length : undefined;
}

const sockets = passed();
let probe = passedProbe();
for (const [key, list] of sockets) sockets.set(key, list.filter(({ fd }) => fd !== probe));
const count = [...sockets.values()].flat().length; // passed, the probe listener apart
const servers = new Set();
let stopping = false;
const original = net.Server.prototype.listen;

// What listen() was asked for, as a key of `sockets`; undefined: something else.
function wanted(first) {
  const options = first !== null && typeof first === 'object' ? first : undefined;
  const place = options ? options.port ?? options.path : first;
  if (options && (options._handle || options.handle || options.fd >= 0)) return undefined;
  if (typeof place === 'number') return place;
  if (typeof place !== 'string') return undefined;
  if (/^\d+$/.test(place)) return Number(place);
  return place.startsWith('\0') ? place : path.resolve(place);
}

// The sockets for listen(...): that of its host, where it names one of those; else all of the port.
// Each is given once: closing its server closes the descriptor.
function take(args) {
  const key = wanted(args[0]);
  const all = key === undefined ? [] : sockets.get(key) || [];
  const options = args[0] !== null && typeof args[0] === 'object' ? args[0] : { host: args[1] };
  const own = all.filter(({ host }) => host !== undefined && host === options.host);
  const taken = own.length > 0 ? own : all;
  if (taken.length > 0) sockets.set(key, all.filter((socket) => !taken.includes(socket)));
  return taken.map(({ fd }) => fd);
}

function end() {
  process.removeListener('SIGTERM', stop);
  process.kill(process.pid, 'SIGTERM'); // the default, as if nobody had listened
}

function stop() {
  if (stopping || process.listenerCount('SIGTERM') > 1) return; // the application's own decides
  stopping = true;
  if (servers.size === 0) end();
  setInterval(() => {
    for (const server of servers) {
      if (server.closeIdleConnections) server.closeIdleConnections();
    }
  }, 50).unref();
  for (const server of servers) {
    server.close(() => {
      servers.delete(server);
      if (servers.size === 0) end();
    });
    if (server.closeIdleConnections) server.closeIdleConnections();
  }
}

// What comes to FD is the server's, as if it had come to its own socket: it also waits for these
// connections when it closes.
function feed(server, fd) {
  const { allowHalfOpen, pauseOnConnect, noDelay, keepAlive, keepAliveInitialDelay } = server;
  const own = net.createServer(
    { allowHalfOpen, pauseOnConnect, noDelay, keepAlive, keepAliveInitialDelay }, (s) => {
      own._connections--;
      server._connections++;
      s.server = s._server = server;
      server.emit('connection', s);
    });
  own.on('error', () => {});
  original.call(own, { fd });
  own.unref();
  return own;
}

function answerProbes(server) {
  const fd = probe;
  if (fd === undefined) return;
  probe = undefined;
  server.once('listening', () => {
    const own = feed(server, fd);
    server.once('close', () => own.close());
  });
}

// The first of several is the server's own; the others stop as it is asked to close.
function takeOthers(server, fds) {
  if (fds.length === 0) return;
  server.once('listening', () => {
    const others = fds.map((fd) => feed(server, fd));
    const { close } = server;
    server.close = (...args) => {
      for (const own of others.splice(0)) own.close();
      return close.apply(server, args);
    };
  });
}

function listen(...args) {
  const [fd, ...others] = take(args);
  if (fd === undefined) {
    const given = args[0] !== null && typeof args[0] === 'object' ? args[0].fd : undefined;
    if (given >= 3 && given < 3 + count) answerProbes(this); // it takes the sockets by itself
    return original.apply(this, args);
  }
  answerProbes(this);
  takeOthers(this, others);
  const options = args[0] !== null && typeof args[0] === 'object' ? args[0] : {};
  const { signal, backlog = args.slice(1).find((a) => typeof a === 'number') } = options;
  const callback = args[args.length - 1];
  // First in the row: it sees whether the application has a handler, also one of process.once().
  if (!process.listeners('SIGTERM').includes(stop)) process.prependListener('SIGTERM', stop);
  servers.add(this);
  this.once('close', () => servers.delete(this));
  return original.call(this, { fd, signal, backlog },
    ...(typeof callback === 'function' ? [callback] : []));
}

if (count > 0) net.Server.prototype.listen = listen;
