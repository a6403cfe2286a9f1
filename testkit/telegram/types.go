package telegram

import "time"

// The wire types hold the fields of the Bot API's types of the same names that
// the fake fills in.

// User is https://core.telegram.org/bots/api#user.
type User struct {
	ID        int64  `json:"id"`
	IsBot     bool   `json:"is_bot"`
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name,omitempty"`
	Username  string `json:"username,omitempty"`
}

// Chat is https://core.telegram.org/bots/api#chat.
type Chat struct {
	ID        int64  `json:"id"`
	Type      string `json:"type"` // private, group, supergroup, channel
	Title     string `json:"title,omitempty"`
	Username  string `json:"username,omitempty"`
	FirstName string `json:"first_name,omitempty"`
	IsForum   bool   `json:"is_forum,omitempty"`
}

// Entity is https://core.telegram.org/bots/api#messageentity. Offset and
// Length count UTF-16 code units.
type Entity struct {
	Type     string `json:"type"`
	Offset   int    `json:"offset"`
	Length   int    `json:"length"`
	URL      string `json:"url,omitempty"`
	Language string `json:"language,omitempty"`
	User     *User  `json:"user,omitempty"`
}

// Button is a button of an inline keyboard,
// https://core.telegram.org/bots/api#inlinekeyboardbutton.
type Button struct {
	Text string `json:"text"`
	Data string `json:"callback_data,omitempty"`
	URL  string `json:"url,omitempty"`
}

type keyboard struct {
	Rows [][]Button `json:"inline_keyboard"`
}

// file is any of the Bot API's file types; they differ in few fields.
type file struct {
	FileID       string `json:"file_id"`
	FileUniqueID string `json:"file_unique_id"`
	FileName     string `json:"file_name,omitempty"`
	MimeType     string `json:"mime_type,omitempty"`
	FileSize     int64  `json:"file_size"`
	FilePath     string `json:"file_path,omitempty"`
	Width        int    `json:"width,omitempty"`
	Height       int    `json:"height,omitempty"`
	Duration     int    `json:"duration,omitempty"`
}

// message is https://core.telegram.org/bots/api#message.
type message struct {
	ID              int       `json:"message_id"`
	ThreadID        int       `json:"message_thread_id,omitempty"`
	IsTopicMessage  bool      `json:"is_topic_message,omitempty"`
	From            *User     `json:"from,omitempty"`
	SenderChat      *Chat     `json:"sender_chat,omitempty"`
	Chat            Chat      `json:"chat"`
	Date            int64     `json:"date"`
	EditDate        int64     `json:"edit_date,omitempty"`
	ReplyTo         *message  `json:"reply_to_message,omitempty"`
	MediaGroupID    string    `json:"media_group_id,omitempty"`
	Text            string    `json:"text,omitempty"`
	Entities        []Entity  `json:"entities,omitempty"`
	Caption         string    `json:"caption,omitempty"`
	CaptionEntities []Entity  `json:"caption_entities,omitempty"`
	Photo           []file    `json:"photo,omitempty"`
	Document        *file     `json:"document,omitempty"`
	Voice           *file     `json:"voice,omitempty"`
	Audio           *file     `json:"audio,omitempty"`
	Video           *file     `json:"video,omitempty"`
	ReplyMarkup     *keyboard `json:"reply_markup,omitempty"`
	TopicCreated    *topic    `json:"forum_topic_created,omitempty"`
	MigrateTo       int64     `json:"migrate_to_chat_id,omitempty"`
}

type topic struct {
	Name      string `json:"name"`
	IconColor int    `json:"icon_color"`
}

// callbackQuery is https://core.telegram.org/bots/api#callbackquery.
type callbackQuery struct {
	ID           string   `json:"id"`
	From         User     `json:"from"`
	Message      *message `json:"message,omitempty"`
	ChatInstance string   `json:"chat_instance"`
	Data         string   `json:"data,omitempty"`
}

// Message is what a chat shows at one place.
type Message struct {
	ID       int
	Chat     int64
	FromBot  bool
	From     string // name of whoever wrote it
	Thread   int
	ReplyTo  int
	Text     string // as people read it: without markup; of a file its caption
	Source   string // as the bot sent it
	HTML     bool   // Source is HTML
	Entities []Entity
	Buttons  [][]Button
	File     *File
	Silent   bool
	At       time.Time
	Edits    []string // what Text was before, oldest first
	Deleted  bool

	author *User
}

// File is a file that a chat shows.
type File struct {
	ID   string
	Kind string // photo, document, voice, audio, video, animation
	Name string
	MIME string
	Size int64
}
