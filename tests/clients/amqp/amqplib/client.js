// A day's work with amqplib: see ../README.md for what every client does.
'use strict'

const amqp = require('amqplib')

const COUNT = 1000

async function main (address) {
  const connection = await amqp.connect(`amqp://guest:guest@${address}?heartbeat=10`)
  const channel = await connection.createConfirmChannel()
  for (const queue of ['node.work', 'node.dead', 'node.rpc']) await channel.deleteQueue(queue)
  await channel.deleteExchange('node.topic')
  await channel.assertExchange('node.topic', 'topic', { durable: true })
  await channel.assertQueue('node.dead', { durable: true })
  await channel.assertQueue('node.work', { durable: true, deadLetterExchange: '', deadLetterRoutingKey: 'node.dead' })
  await channel.bindQueue('node.work', 'node.topic', 'a.#')
  let returned
  channel.on('return', message => { returned = message })
  for (let number = 0; number < COUNT; number++) {
    const options = { persistent: true, mandatory: true, headers: { n: number }, messageId: String(number) }
    channel.publish('node.topic', 'a.b', Buffer.from(`body ${number}`), options)
  }
  await channel.waitForConfirms()
  console.log('confirmed', COUNT)
  channel.publish('node.topic', 'nowhere', Buffer.from('x'), { mandatory: true })
  await channel.waitForConfirms()
  console.log('returned', returned.fields.replyCode, returned.fields.replyText)
  await work(connection)
  await dead(connection)
  await rpc(connection)
  await failure(connection)
  console.log('deleted', (await channel.deleteQueue('node.work')).messageCount)
  await connection.close()
  console.log('closed')
}

async function work (connection) {
  const channel = await connection.createChannel()
  await channel.prefetch(50)
  const numbers = []
  let redelivered = 0
  let tag
  await new Promise((resolve, reject) => {
    channel.consume('node.work', message => {
      const number = message.properties.headers.n
      if (message.content.toString() !== `body ${number}`) reject(new Error('another body'))
      numbers.push(number)
      redelivered += message.fields.redelivered ? 1 : 0
      if (number % 2 === 0) channel.ack(message)
      else channel.reject(message, false)
      if (numbers.length === COUNT) resolve()
    }).then(ok => { tag = ok.consumerTag }, reject)
  })
  await channel.cancel(tag)
  console.log('in order', numbers.every((number, place) => number === place), 'redelivered', redelivered)
  console.log('empty', await channel.get('node.work') === false)
  await channel.close()
}

async function dead (connection) {
  const channel = await connection.createChannel()
  let count = 0
  let message
  let last
  while ((message = await channel.get('node.dead'))) {
    const death = message.properties.headers['x-death'][0]
    if (count++ === 0) console.log('death', death.reason, death.queue, death.exchange, death['routing-keys'].join(), death.count)
    last = message
  }
  channel.ack(last, true)
  console.log('dead', count)
  await channel.close()
}

async function rpc (connection) {
  const [client, server] = [await connection.createChannel(), await connection.createChannel()]
  await server.assertQueue('node.rpc', { exclusive: true })
  await server.consume('node.rpc', message => {
    server.sendToQueue(message.properties.replyTo, Buffer.from(message.content.toString().toUpperCase()))
    server.ack(message)
  })
  const answer = new Promise(resolve => {
    client.consume('amq.rabbitmq.reply-to', resolve, { noAck: true }).then(() => {
      client.sendToQueue('node.rpc', Buffer.from('question'), { replyTo: 'amq.rabbitmq.reply-to' })
    })
  })
  console.log('answer', (await answer).content.toString())
  await client.close()
  await server.close()
}

async function failure (connection) {
  const channel = await connection.createChannel()
  channel.on('error', error => console.log('refused', error.code, error.message))
  await channel.checkQueue('node.none').catch(() => {})
}

main(process.argv[2]).catch(error => {
  console.error(error)
  process.exit(1)
})
