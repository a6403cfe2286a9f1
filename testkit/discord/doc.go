// Package discord is a fake of Discord at the wire: its REST API and its
// gateway (https://discord.com/developers/docs/intro), an HTTP server on
// 127.0.0.1 that behaves as the real one is documented to, its refusals
// included, and that can be told to misbehave.
//
// A test makes people, servers and channels, lets people write, and looks at
// what they see:
//
//	srv, err := discord.New(discord.Options{})
//	defer srv.Close()
//	alice := srv.AddUser("Alice")
//	dm := srv.DM(alice)
//	srv.Say(alice, dm, "hello")        // an event for the bot
//	m, err := srv.Next(ctx, dm)        // the bot's next message there
//	fmt.Println(srv.Transcript(dm))
//
// The bot is pointed at srv.URL() and srv.Token(). Nothing here needs the
// testing package or runs in the bot's process.
//
// What is faithful: hello, heartbeats, identify with intents, resume with
// sequence and replay, invalid sessions and close codes
// (https://discord.com/developers/docs/events/gateway,
// https://discord.com/developers/docs/topics/opcodes-and-status-codes), the
// content that is withheld without its intent, messages, replies, threads,
// nonces, components, interactions, commands and attachments, rate limit
// headers (https://discord.com/developers/docs/topics/rate-limits), and the
// codes and messages of errors.
//
// What can go wrong on request: any answer of any call (testkit/fault), and on the
// gateway lost acknowledgements, silence, closes with any code, invalid
// sessions, orders to reconnect, refused intents, and a server that is gone for
// a while (GoDark).
package discord
