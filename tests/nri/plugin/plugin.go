// Package plugin is what the test plugins have in common: how they are configured, and how they connect.
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

// Config is given by the flag -config, or by the runtime to a plugin that it has started.
type Config struct {
	// Events are appended to this file, one JSON object a line.
	Record string `json:"record"`
	// An event that is named here is answered once the file exists.
	Hold map[string]string `json:"hold"`
	// An event that is named here is refused with these words, as long as the file Refusing exists or none is named.
	Refuse   map[string]string `json:"refuse"`
	Refusing string            `json:"refusing"`
	// Adjustments by container name.
	Adjust map[string]*api.ContainerAdjustment `json:"adjust"`
	// Updates asked for in answer to the creation of the container of that name.
	Update map[string][]*api.ContainerUpdate `json:"update"`
	// Evictions asked for likewise.
	Evict map[string][]*api.ContainerEviction `json:"evict"`
	// Limits that every update of a container gets.
	OnUpdate *api.LinuxResources `json:"on_update"`
	// Answer to the first synchronization, and what is asked for unsolicited when the file Unsolicited exists.
	Unsolicited string `json:"unsolicited"`
	// hang, die or garbage, by event.
	Misbehave map[string]string `json:"misbehave"`
	// Refuses every adjustment that others make, for this reason.
	Reject string `json:"reject"`
	// What becomes of requests that are not answered.
	FailRequest   bool `json:"fail_request"`
	KeepConnected bool `json:"keep_connected"`
}

// Base is embedded in every plugin.
type Base struct {
	Config Config
	Stub   stub.Stub
	// Trunk is the connection below everything.
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

// Read takes over a configuration.
func (b *Base) Read(config string) {
	if err := json.Unmarshal([]byte(config), &b.Config); err != nil {
		Fail(err)
	}
}

// Run serves impl, which embeds this, until the connection ends.
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

// addEvictions puts evictions into the answers: the stub has no way to ask for them.
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

// Fail ends the plugin.
func Fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
