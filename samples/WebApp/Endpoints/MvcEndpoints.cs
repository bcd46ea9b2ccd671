#if MVC
using System.Diagnostics.CodeAnalysis;
using Microsoft.AspNetCore.Mvc;

namespace Evio.Samples.WebApp.Endpoints;

/// <summary>An action of MVC. It is there with <c>--mvc true</c> only: with MVC every request goes through the middleware of authorization.</summary>
internal static class MvcEndpoints
{
    private const string Reason = "A program that is trimmed is compiled without MVC.";

    [UnconditionalSuppressMessage("Trimming", "IL2026", Justification = Reason)]
    public static void AddMvcActions(this IServiceCollection services, Settings settings)
    {
        if (settings.Mvc)
        {
            // By itself MVC looks for controllers in the program that was started, which in a test is another one.
            services.AddControllers().AddApplicationPart(typeof(OrderController).Assembly);
        }
    }

    [UnconditionalSuppressMessage("Trimming", "IL2026", Justification = Reason)]
    public static void MapMvcActions(this IEndpointRouteBuilder endpoints)
    {
        if (endpoints.ServiceProvider.GetRequiredService<Settings>().Mvc)
        {
            endpoints.MapControllers();
        }
    }
}

[ApiController]
public sealed class OrderController : ControllerBase
{
    [HttpGet("/mvc")]
    public Order Get() => OrdinaryEndpoints.CreateOrder();
}
#endif
