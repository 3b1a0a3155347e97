// Package plugin has the common parts of the test plugins: their configuration and their connection.
package plugin

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"github.com/containerd/ttrpc"
)

// Config is read from the flag -config, or comes from the runtime if it has started the plugin.
type Config struct {
	// Events are appended to this file, one JSON object a line.
	Record string `json:"record"`
	// Paths by event: the event is answered once the file exists.
	Hold map[string]string `json:"hold"`
	// Messages by event: the event is refused while the file Refusing exists, or always if Refusing is empty.
	Refuse   map[string]string `json:"refuse"`
	Refusing string            `json:"refusing"`
	// Adjustments by container name.
	Adjust map[string]*api.ContainerAdjustment `json:"adjust"`
	// Updates of other containers in the answer to CreateContainer, by container name.
	Update map[string][]*api.ContainerUpdate `json:"update"`
	// Evictions in the answer to CreateContainer, by container name.
	Evict map[string][]*api.ContainerEviction `json:"evict"`
	// Limits in the answer to every UpdateContainer.
	OnUpdate *api.LinuxResources `json:"on_update"`
	// Path of a file with updates to ask for unsolicited, once it exists.
	Unsolicited string `json:"unsolicited"`
	// Misbehaviour by event: hang, die or garbage.
	Misbehave map[string]string `json:"misbehave"`
	// Reason for which adjustments of environment variables are rejected. If empty, none are.
	Reject string `json:"reject"`
	// Failure policy for requests that are not answered.
	FailRequest   bool `json:"fail_request"`
	KeepConnected bool `json:"keep_connected"`
}

// Base is embedded in every plugin.
type Base struct {
	Config Config
	Stub   stub.Stub
	// Trunk is the connection to the runtime, or nil if the runtime has started the plugin.
	Trunk net.Conn
	name  string
	index string
	at    string
}

// Flags reads the command line.
func (b *Base) Flags() {
	config := flag.String("config", "{}", "configuration in JSON")
	flag.StringVar(&b.at, "socket", "", "where the runtime listens")
	flag.StringVar(&b.name, "name", "", "of the plugin")
	flag.StringVar(&b.index, "idx", "", "two digits")
	flag.Parse()
	b.Read(*config)
}

// Read parses a configuration into Config.
func (b *Base) Read(config string) {
	if err := json.Unmarshal([]byte(config), &b.Config); err != nil {
		Fail(err)
	}
}

// Run serves impl, which embeds this Base, until the connection ends.
func (b *Base) Run(impl any) {
	policy := &api.FailurePolicy{FailRequest: b.Config.FailRequest, KeepConnected: b.Config.KeepConnected}
	evict := ttrpc.WithUnaryServerInterceptor(b.addEvictions)
	options := []stub.Option{stub.WithFailurePolicy(policy), stub.WithTTRPCOptions(nil, []ttrpc.ServerOpt{evict})}
	if b.at != "" {
		trunk, err := net.Dial("unix", b.at)
		if err != nil {
			Fail(err)
		}
		b.Trunk = trunk
		options = append(options, stub.WithPluginName(b.name), stub.WithPluginIdx(b.index), stub.WithConnection(trunk))
	}
	var err error
	if b.Stub, err = stub.New(impl, options...); err != nil {
		Fail(err)
	}
	if err := b.Stub.Run(context.Background()); err != nil {
		Fail(err)
	}
}

// addEvictions puts evictions into the answers to CreateContainer, since the stub has no way to ask for them.
func (b *Base) addEvictions(ctx context.Context, unmarshal ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
	var container string
	answer, err := method(ctx, func(request any) error {
		err := unmarshal(request)
		if create, ok := request.(*api.CreateContainerRequest); ok {
			container = create.GetContainer().GetName()
		}
		return err
	})
	if create, ok := answer.(*api.CreateContainerResponse); ok && create != nil {
		create.Evict = b.Config.Evict[container]
	}
	return answer, err
}

// Fail prints the error and ends the plugin.
func Fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
