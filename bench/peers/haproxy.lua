-- Lines as a TCP service of HAProxy.
core.register_service("echo", "tcp", function(applet)
  while true do
    local line = applet:getline()
    if not line or #line == 0 then break end
    applet:send(line)
  end
end)
