// Bytes back on node's net and dgram, and a greeting on its http: tcp|unix|udp|http PORT|PATH.
const [kind, where] = process.argv.slice(2);
const at = kind === 'unix' ? { path: where } : { port: +where, host: '127.0.0.1' };

if (kind === 'udp') {
  const s = require('dgram').createSocket('udp4');
  s.on('message', (data, from) => s.send(data, from.port, from.address));
  s.bind(at.port, at.host);
} else if (kind === 'http') {
  require('http').createServer((request, response) => {
    response.setHeader('Content-Type', 'text/plain');
    response.end('Hello, world!\n');
  }).listen({ ...at, backlog: 1024 });
} else {
  require('net').createServer(s => {
    s.on('data', data => s.write(data));
    s.on('error', () => s.destroy());
  }).listen({ ...at, backlog: 1024 });
}
