// Package matrix is a fake of a Matrix homeserver at the wire: the parts of the
// client-server API (https://spec.matrix.org/v1.15/client-server-api/) that a bot
// without end-to-end encryption uses, on 127.0.0.1, with the refusals that a real
// one gives, and able to misbehave on request.
//
// A test makes people and rooms, lets them write, and looks at what they see:
//
//	srv, err := matrix.New(matrix.Options{})
//	defer srv.Close()
//	ann := srv.AddUser("ann")
//	dm := srv.Invite(ann, true)             // an invitation for the account
//	srv.Say(ann, dm, "hello")
//	m, err := srv.Next(ctx, dm)             // the account's next message there
//
// The account is srv.User() with srv.Token(), or srv.Password() to log in with.
// Nothing here needs the testing package, so the same server serves
// demonstrations.
//
// What is faithful: /sync as a long poll with its token, filters of types,
// senders and lengths, limited timelines with prev_batch, invitations with their
// stripped state (told once), lazily loaded members, rooms that were just joined
// with their whole state, account data; /messages backwards from a token or from
// the end, down to another; transaction ids, known per device; state events, and
// who may see them; reactions that are there already; power levels; aliases;
// upgraded rooms; uploads and authenticated downloads; logins with a password,
// which end the token that the device had; logged-out tokens, softly too; limits
// of the size of an event; errors with their codes, and M_LIMIT_EXCEEDED with
// retry_after_ms.
//
// What differs: events are not signed and rooms do not fork, so that an order of
// events is all that there is of a room; to-device messages, keys and presence
// are absent; origin_server_ts is unique within the server.
package matrix
