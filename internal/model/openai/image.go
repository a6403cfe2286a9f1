package openai

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

const (
	maxImages     = 8        // in one request, the latest first
	maxImage      = 5 << 20  // bytes of one
	maxImageBytes = 12 << 20 // bytes of all in one request
)

// pictures decides which images of a transcript a request carries.
type pictures struct {
	budget int64
	chosen map[string]bool // paths
}

// choose takes the latest images.
func (p *pictures) choose(history []domain.Message) {
	p.chosen = map[string]bool{}
	for i := len(history) - 1; i >= 0; i-- {
		for _, a := range history[i].Images {
			if len(p.chosen) < maxImages {
				p.chosen[a.Path] = true
			}
		}
	}
}

// content gives a user message's content: its text, and its images as data
// URLs. An image that is not carried is named in the text, so that the model
// knows that there was one.
func (p *pictures) content(m domain.Message) any {
	text, parts := m.Content, []wirePart(nil)
	for _, a := range m.Images {
		url, why := p.dataURL(a)
		if why != "" {
			if text != "" {
				text += "\n"
			}
			text += fmt.Sprintf("[An image, %s, is not shown: %s]", imageName(a), why)
			continue
		}
		parts = append(parts, wirePart{Type: "image_url", ImageURL: &imageURL{url}})
	}
	if len(parts) == 0 {
		if text == "" {
			return emptyMessage
		}
		return text
	}
	if text != "" {
		parts = append([]wirePart{{Type: "text", Text: text}}, parts...)
	}
	return parts
}

// dataURL gives the image, or why it cannot be had.
func (p *pictures) dataURL(a domain.Attachment) (url, why string) {
	switch {
	case p.chosen == nil:
		return "", "this model does not see images"
	case !p.chosen[a.Path]:
		return "", "it is too long ago"
	case a.Path == "":
		return "", "it was not downloaded"
	}
	b, err := readImage(a.Path)
	if err != nil {
		return "", "it cannot be read"
	}
	if p.budget -= int64(len(b)); p.budget < 0 || len(b) > maxImage {
		return "", "it is too large"
	}
	kind := http.DetectContentType(b)
	switch kind {
	case "image/png", "image/jpeg", "image/gif", "image/webp":
		return "data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(b), ""
	}
	return "", "it is no PNG, JPEG, GIF or WebP file"
}

// readImage reads a regular file, and one byte more than an image may have.
func readImage(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("no regular file") // opening a FIFO would wait for ever
	}
	f, err := plain.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxImage+1))
}

func imageName(a domain.Attachment) string {
	if a.Name == "" {
		return "without a name"
	}
	return a.Name
}
