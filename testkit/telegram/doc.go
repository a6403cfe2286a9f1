// Package telegram is a fake of Telegram's Bot API
// (https://core.telegram.org/bots/api) at the wire: an HTTP server on
// 127.0.0.1 that behaves as the real one is documented to, its refusals
// included, and that can be told to misbehave.
//
// A test makes people and chats, lets them write, and looks at what they see:
//
//	srv, err := telegram.New(telegram.Options{})
//	defer srv.Close()
//	alice := srv.AddUser("Alice")
//	srv.Say(alice, "hello")             // an update for the bot
//	m, err := srv.Next(ctx, alice.ID)   // the bot's next message to her
//	fmt.Println(srv.Transcript(alice.ID))
//
// The bot is pointed at srv.URL() and srv.Token(). Nothing here needs the
// testing package or runs in the bot's process, so the same server serves
// demonstrations and benchmarks.
//
// What is faithful: the forms in which parameters may come, getUpdates with its
// offsets, long poll and conflicts, HTML entities and the length limits that
// are counted after them, replies, topics, inline keyboards, edits, files in and
// out with their limits, flood control (off until it is switched on), and the
// codes and descriptions of the errors.
//
// What can go wrong on request (testkit/fault): any answer of any method, a wait, a
// request that is never answered, a connection cut before or after the request
// was carried out, and a server that is gone for a while (GoDark).
package telegram
